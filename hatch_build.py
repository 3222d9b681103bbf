"""The step of the package's build that compiles csrc. Without a compiler the build goes on without it, and says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Found by hatchling under this name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles one library per instruction set; hatchling calls this for wheels and editable installs."""
        if self.target_name != "wheel":
            return
        builder = _builder(Path(self.root) / "csrc" / "build.py")
        built = []
        for isa in builder.isas():
            try:
                built.append(builder.build(isa))
            except RuntimeError as error:
                self.app.display_warning(f"Magister goes on without its {isa} kernels: {error}")
        if built:
            build_data["artifacts"] += [str(path.relative_to(self.root)) for path in built]
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def _builder(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("magister_csrc_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
