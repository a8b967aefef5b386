"""The reference says all that there is, and nothing that there is not."""

import argparse
import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

import pytest

from keyturn.cli.answers import ExitStatus
from keyturn.cli.arguments import Parser
from keyturn.cli.main import _COMMANDS
from keyturn.process.settings import Section
from keyturn.process.values import Secret, without_none
from tests.docs.pages import ROOT, code_words, commands
from tests.docs.reader import reading

REFERENCE = ROOT / "docs/reference"
PROGRAMS = ("keyturn", "serving", "authorization", "keyservice", "introspection", "revocation", "worker")
_WORDS_OF_OTHERS = {"rotation.distribution": "expired + skew"}  # A default that other settings make.
_NOTING = frozenset({"debug", "info", "warning", "error", "exception", "note", "_note", "line"})


def modules() -> Iterator[str]:
    """Name every module of the programs."""
    for program in PROGRAMS:
        for found in pkgutil.walk_packages([str(ROOT / program)], f"{program}."):
            if not found.name.endswith("__main__"):
                yield found.name


def sections() -> dict[str, type[Section]]:
    """Return every section of settings by its name."""
    for module in modules():
        importlib.import_module(module)
    ours = (shape for shape in below(Section) if shape.__module__.startswith(PROGRAMS))
    return {shape.SECTION: shape for shape in ours if not shape.__name__.startswith("_")}  # Those are partial views.


def below(shape: type[Section]) -> Iterator[type[Section]]:
    """Yield every kind of a section, and the kinds of these."""
    for kind in shape.__subclasses__():
        yield kind
        yield from below(kind)


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows, without backticks."""
    found = [line.strip("|").replace("`", "").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in found]


def test_every_setting_is_described_with_its_default() -> None:
    """A setting that is not in the reference is not found; one that is no more misleads."""
    parts = re.split(
        r"^## `\[([a-z_]+)(?:\.NAME)?\]`$", (REFERENCE / "configuration.md").read_text(), flags=re.MULTILINE
    )
    told = {
        name: {row[0]: row[2] for row in rows(text)} for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }  # fmt: skip
    assert told == {name: settings_of(shape) for name, shape in sections().items()}


def settings_of(shape: type[Section]) -> dict[str, str]:
    """Return the settings of a section and how the reference writes their defaults."""
    hints = get_type_hints(shape)
    described = {}
    for field in fields(shape):  # type: ignore[arg-type]  # Each Section is a dataclass.
        name = f"{field.name}_file" if without_none(hints[field.name]) is Secret else field.name
        described[name] = _WORDS_OF_OTHERS.get(f"{shape.SECTION}.{name}") or default_of(field, hints[field.name])
    return described


def default_of(field: Field[Any], kind: Any) -> str:
    """Return a default as a reader would write it."""
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    value: Any = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return json.dumps([getattr(one, "name", one) for one in value])
    if without_none(kind) is float:
        return duration(value)
    return str(value)


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits it whole."""
    units = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))
    length, unit = next((length, unit) for length, unit in units if seconds % length == 0)
    return f"{seconds / length:g} {unit}"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what issuer and sidecar of a running system answer to a path."""
    with reading(tmp_path_factory.mktemp("clone")) as reader:
        reader.read([shown for shown in commands(ROOT / "README.md") if shown.command == "make up"])
        told = {
            path: ["\n".join(reader.type(f"curl -s http://127.0.0.1:{port}{path}")[0]) for port in (8400, 8410)]
            for path in ("/openapi.json", "/metrics")
        }
        reader.finish()
    return told


def test_every_route_is_described(answers: dict[str, list[str]]) -> None:
    """What is served and not described is found by attackers alone."""
    offered = {"POST /sign"}  # On the signing socket, which describes nothing.
    for text in answers["/openapi.json"]:
        for path, operations in json.loads(text)["paths"].items():
            shown = re.sub(r"^/nginx/.*", "/nginx/{policy}", path)
            offered |= {f"{method.upper()} {shown}" for method in operations}
    described = {word for word in code_words((REFERENCE / "http.md").read_text()) if re.match(r"(GET|POST) /", word)}
    assert described == offered


def test_every_metric_is_described_with_its_type(answers: dict[str, list[str]]) -> None:
    """Dashboards and alarms are written by this page."""
    shown: dict[str, str] = {}
    for text in answers["/metrics"]:
        found = re.findall(r"^# TYPE (keyturn_\w+) (\w+)$", text, re.MULTILINE)
        shown |= {name: kind for name, kind in found if not name.endswith("_created")}
    assert {row[0]: row[1] for row in rows((REFERENCE / "metrics.md").read_text()) if len(row) == 4} == shown


def offered_commands() -> dict[str, set[str]]:
    """Return every command and its options."""
    groups = Parser(prog="keyturn").add_subparsers()
    for module in dict.fromkeys(_COMMANDS.values()):
        importlib.import_module(f"keyturn.cli.{module}").add_commands(groups)
    return dict(leaves("keyturn", groups))


def leaves(name: str, group: "argparse._SubParsersAction[Any]") -> Iterator[tuple[str, set[str]]]:
    """Yield the commands below a group."""
    for word, parser in group.choices.items():
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for inner in below:
            yield from leaves(f"{name} {word}", inner)
        if not below:
            yield f"{name} {word}", {option for action in parser._actions for option in action.option_strings}


def test_every_command_and_option_is_described() -> None:
    """The page and `--help` say the same."""
    text, known = (REFERENCE / "cli.md").read_text(), offered_commands()
    assert {row[0] for row in rows(text) if row[0].startswith("keyturn ")} == known.keys()
    offered = {option for options in known.values() for option in options} - {"-h", "--help"}
    assert set(re.findall(r"--[a-z][a-z-]*", " ".join(code_words(text)))) - {"--help"} == offered


def test_every_log_event_is_described() -> None:
    """Who is woken by an event must find what it means."""
    described = {row[0] for row in rows((REFERENCE / "events-and-logs.md").read_text())}
    assert described == set(events())


def events() -> Iterator[str]:
    """Yield every event that the programs log: first arguments of log calls, literal or by a constant's name."""
    trees = [ast.parse(path.read_text()) for program in PROGRAMS for path in (ROOT / program).rglob("*.py")]
    constants = dict(pair for tree in trees for pair in strings(tree))
    for tree in trees:
        own = constants | dict(strings(tree))  # Two modules may call different events by one name.
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not call.args or name_of(call.func) not in _NOTING:
                continue
            if isinstance(call.func, ast.Attribute) and name_of(call.func.value).endswith("redis"):
                continue  # INFO, a command of the store's.
            first = call.args[0]
            event = first.value if isinstance(first, ast.Constant) else own.get(name_of(first))
            if isinstance(event, str) and re.fullmatch(r"[a-z_]+", event):
                yield event


def strings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield a module's string constants."""
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if targets and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield name_of(targets[0]), value.value


def name_of(node: ast.AST) -> str:
    """Return the last word of a name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_every_exit_status_is_described() -> None:
    """Scripts rest on them."""
    told = re.findall(r"^\| (\d+) \|", (REFERENCE / "exit-statuses.md").read_text(), re.MULTILINE)
    assert {str(int(status)) for status in ExitStatus} <= set(told)
