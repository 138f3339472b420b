"""Numbers with what they count, in the singular where it is one."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 clip`, `2,000 clips`, `0 classes`; the plural of a noun that does not simply take an s is given."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {plural or noun + ('es' if noun.endswith(('s', 'x', 'ch')) else 's')}"
