"""Made-up clips, the tiny encoder trained on them, and the demo."""
