"""Makes the classes known to AutoConfig, AutoModel, AutoImageProcessor, AutoProcessor and `pipeline`.

`import modeling_dkd` has to be enough for that, and `import modeling_dkd.dkd_head` must not wait for all of
`transformers`. So each class is registered as soon as both its own module and that of its Auto class have been
imported, whichever comes first; an Auto class that is imported brings ours along.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple


class Registration(NamedTuple):
    """A class of ours and the Auto class that finds it, each with its module."""

    auto_module: str
    auto_class: str
    module: str
    name: str

    def register(self, auto: Any, ours: Any) -> None:
        """Tell the Auto class of ours."""
        own_class, auto_class = getattr(ours, self.name), getattr(auto, self.auto_class)
        if self.auto_class == "PIPELINE_REGISTRY":
            ours.register_task(auto_class)
            return
        if self.auto_class == "AutoConfig":
            auto_class.register(own_class.model_type, own_class, exist_ok=True)
            return
        config_class = import_module(f"{__package__}.configuration_dkd").DKDCLIPConfig
        if self.auto_class == "AutoImageProcessor":
            auto_class.register(config_class, image_processor_classes={"pil": own_class}, exist_ok=True)
        else:
            auto_class.register(config_class, own_class, exist_ok=True)


AUTO = "transformers.models.auto"
REGISTRATIONS = (
    Registration(f"{AUTO}.configuration_auto", "AutoConfig", f"{__package__}.configuration_dkd", "DKDCLIPConfig"),
    Registration(f"{AUTO}.modeling_auto", "AutoModel", f"{__package__}.modeling_dkd", "DKDCLIPModel"),
    Registration(
        f"{AUTO}.image_processing_auto",
        "AutoImageProcessor",
        f"{__package__}.image_processing_dkd",
        "DKDCLIPImageProcessor",
    ),
    Registration(f"{AUTO}.processing_auto", "AutoProcessor", f"{__package__}.processing_dkd", "DKDCLIPProcessor"),
    Registration(
        "transformers.pipelines",
        "PIPELINE_REGISTRY",
        f"{__package__}.video_pipelines",
        "ZeroShotVideoClassificationPipeline",
    ),
)


class ImportWatcher(MetaPathFinder):
    """Lets Python import the modules above as ever, and registers when one has been."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the module is, as the other finders say, with the registration after its execution."""
        registration = next((r for r in REGISTRATIONS if fullname in (r.auto_module, r.module)), None)
        if registration is None:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                after_import(registration, fullname)

            loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def after_import(registration: Registration, name: str) -> None:
    """One of the two modules has been executed: register if the other has been too, or bring ours along."""
    auto, ours = sys.modules.get(registration.auto_module), sys.modules.get(registration.module)
    if name == registration.auto_module and ours is None:
        import_module(registration.module)  # comes back here
        return
    of_auto_class = hasattr(getattr(ours, registration.name, None), "register_for_auto_class")
    if of_auto_class and name == registration.module:
        # What is saved carries its own code, so that it loads with trust_remote_code=True where this package is not.
        getattr(ours, registration.name).register_for_auto_class(registration.auto_class)
    if hasattr(auto, registration.auto_class) and hasattr(ours, registration.name):
        registration.register(auto, ours)


def watch_imports() -> None:
    """Begin; what has been imported already is registered now."""
    if any(isinstance(finder, ImportWatcher) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, ImportWatcher())
    for registration in REGISTRATIONS:
        if registration.auto_module in sys.modules:
            after_import(registration, registration.auto_module)
