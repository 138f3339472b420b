"""Build hook: the wheel carries the embedded checkpoint, complete with its code, and the files of a Space."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EmbeddedCheckpoint(BuildHookInterface):
    """Runs before a wheel is built, also before the one of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring the code beside the checkpoint's weights up to date, and put both into a wheel to be passed on."""
        package = runpy.run_path(str(Path(self.root, "modeling_dkd", "embedding", "embedded_checkpoint.py")))
        package["copy_code"](package["CHECKPOINT"])
        if version != "editable":
            for name in ("dkd-tiny", "space"):
                build_data["force_include"][str(Path(self.root, "hub_configs", name))] = (
                    f"modeling_dkd/hub_configs/{name}"
                )
