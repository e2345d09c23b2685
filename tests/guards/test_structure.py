"""The layout's promises: imports point one way, the truth stays away from training, files stay short."""

from __future__ import annotations

import ast
import re

import pytest

from fromnoise.pipeline import STAGES
from tests.guards.sources import MODULES, ROOT, SOURCE, graph, imports, reachable, tree

# Each layer may import itself and those after it.
LAYERS = (
    ("cli", "api", "__main__"),
    ("stages",),
    ("report", "web", "planner"),
    ("evaluate", "generate"),
    ("model", "data", "world", "tasks", "optim", "run", "parallel"),  # the world asks and judges by means of tasks
    ("pipeline", "algorithms"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MAY_SEE_THE_TRUTH = ("fromnoise.evaluate", "fromnoise.report", "fromnoise.stages.evaluate", "fromnoise.stages.report")
BESIDE_STAGES = {"report", "chat", "label"}  # verbs with a file in stages/ that are no step of the pipeline


def violations(edges: dict[str, set[str]]) -> list[str]:
    found = []
    for module, imported in edges.items():
        part = module.split(".")[1] if "." in module else None
        for other in sorted(imported):
            target = other.split(".")[1] if "." in other else None
            if part is None or target is None:
                continue  # the package's own face: loads nothing when imported
            if LEVEL[target] < LEVEL[part]:
                found.append(f"{module} imports {other}: {part} is below {target}")
            if part == target == "stages" and not other.startswith(module) and other != "fromnoise.stages":  # rlhf_x is rlhf's
                found.append(f"{module} imports {other}: no stage imports another")
    return found


def test_every_part_has_a_layer():
    assert {name.split(".")[1] for name in MODULES if "." in name} <= set(LEVEL)


def test_imports_point_one_way():
    assert violations(graph()) == []


def test_an_import_against_the_direction_is_found():
    """The guard's own broken twins."""
    assert violations({"fromnoise.algorithms.losses": {"fromnoise.run.recipe"}})
    assert violations({"fromnoise.model.transformer": {"fromnoise.stages.sft"}})
    assert violations({"fromnoise.stages.sft": {"fromnoise.stages.pretrain"}})
    inside = ast.parse("def f():\n    from fromnoise.world import oracle\n")
    assert imports(inside, "fromnoise.stages.rlhf") <= {"fromnoise.world.oracle", "fromnoise.world"} and imports(inside, "x")
    hidden = ast.parse("if TYPE_CHECKING:\n    from fromnoise.stages import sft\n")
    assert imports(hidden, "fromnoise.run.context") == set()


def test_algorithms_know_torch_and_nothing_of_ours():
    edges = graph(typing_too=True)
    for module in (name for name in MODULES if name.startswith("fromnoise.algorithms.")):
        assert all(other.startswith("fromnoise.algorithms") for other in edges[module]), module


def test_tasks_know_nothing_of_ours():
    """A verifier that knew the world, the model or the reward could not judge all three alike."""
    edges = graph()
    for module in (name for name in MODULES if name.startswith("fromnoise.tasks.")):
        assert all(other.startswith("fromnoise.tasks") for other in edges[module]), module


def test_only_evaluation_and_report_see_the_truth():
    for module, imported in graph().items():
        if "fromnoise.world.oracle" in imported:
            assert module.startswith(MAY_SEE_THE_TRUTH), f"{module} imports world.oracle"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.verb != "evaluate"], ids=lambda stage: stage.verb)
def test_no_training_stage_reaches_the_truth_by_any_path(stage):
    assert "fromnoise.world.oracle" not in reachable(graph(), stage.module)


def test_the_list_of_stages_is_the_list_of_files():
    files = {path.stem for path in (SOURCE / "fromnoise/stages").glob("*.py")} - {"__init__"}
    assert {name.split("_")[0] for name in files} == {stage.verb for stage in STAGES} | BESIDE_STAGES
    assert all(stage.module == f"fromnoise.stages.{stage.verb}" for stage in STAGES)


def test_stages_read_what_earlier_ones_write():
    written: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= written, stage.verb
        assert not set(stage.writes) & written, stage.verb
        written |= set(stage.writes)


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            limit = 150 if path.parent.name == "stages" else 60  # a loop is read in one sitting, from top to bottom
            length = node.end_lineno - node.lineno + 1
            assert length <= limit, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_nothing_unsafe_or_unstable(path):
    """No pickle anywhere; no `hash()` of text, which differs between processes; `transformers` is for tests alone."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {name.split(".")[0] for name in names} & {"pickle", "cPickle", "dill", "joblib", "transformers"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("hash", "eval", "exec"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            assert (node.func.value.id, node.func.attr) not in (("torch", "load"), ("torch", "save")), f"line {node.lineno}"


def test_every_package_has_an_init():
    folders = {path.parent for path in MODULES.values()}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_what_is_imported_is_declared():
    """Every third-party import is a dependency, or an extra that is imported inside a function only.

    Modules of `web` may name theirs at the top: the stages that serve import them inside functions.
    """
    import sys
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.split(r"[<>=\[; ]", text)[0].lower().replace("-", "_") for text in requirements}

    core, extras = names(project["dependencies"]), names(text for extra in project["optional-dependencies"].values() for text in extra)
    core |= {"markupsafe"}  # comes with jinja2, which returns its strings
    for path in MODULES.values():
        parsed = tree(path)
        for node in ast.walk(parsed):
            if isinstance(node, ast.Import):
                found = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = {node.module.split(".")[0]}
            else:
                continue
            foreign = found - set(sys.stdlib_module_names) - {"fromnoise"} - core
            assert foreign <= (set() if node in parsed.body and path.parent.name != "web" else extras), f"{path}: {foreign}"
            if path.parent.name != "web" and node in parsed.body:
                assert not getattr(node, "module", "").startswith("fromnoise.web"), f"{path}: imports what needs an extra at its top"


def test_pins_agree_with_what_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    declared = {re.split(r"[<>=\[; ]", text)[0].lower() for text in texts}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert {line.split("==")[0].lower() for line in lines} == declared
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run"])
def test_no_package_host_is_named(name):
    """Packages come from wherever pip is set up to take them."""
    text = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|https?://", text)
