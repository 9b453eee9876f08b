"""How far one has to walk in the code: files in a folder, imports of a file, parameters of a function, and so on.

    python scripts/layout_figures.py [CHECKOUT ...]

Each checkout is a folder with `src/ireu_cli`; by default this one. To compare with an earlier commit:
`git worktree add ../before COMMIT`, and name `../before .`.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

KINDS = {"FaceEncoder", "Encoder", "SiglipTower", "Ledger", "GateLedger", "Gates"}
"""Classes that there is one of for each kind of encoder."""
NAMES = {"SIGLIP", "TRANSFORMER", "FACE_TAPS", "is_siglip", "anatomy"}
"""What else tells the kind of an encoder."""
HOMES = ("models", "encoders")
"""Where an encoder's kind may be asked for."""


def main() -> None:
    """Print a table with a column for each checkout."""
    checkouts = [Path(name) for name in sys.argv[1:]] or [Path(__file__).parent.parent]
    columns = [figures(checkout / "src" / "ireu_cli") for checkout in checkouts]
    print("| | " + " | ".join(str(checkout) for checkout in checkouts) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


def figures(source: Path) -> dict[str, str]:
    """What is printed of one package, as text."""
    files = sorted(source.rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in files}
    functions = [(path, node) for path in files for node in ast.walk(trees[path]) if isinstance(node, ast.FunctionDef)]
    folder, most = Counter(path.parent for path in files).most_common(1)[0]
    imported = {path: len(set(_imported(trees[path]))) for path in files}
    wide = max(functions, key=lambda each: _parameters(each[1]))
    homes = defaultdict(set)
    for path in files:
        if path.name != "__init__.py":
            homes[path.name].add(path.parent)
    twice = sorted(name for name, folders in homes.items() if len(folders) > 1)
    asked = [place for path in files if path.relative_to(source).parts[0] not in HOMES for place in _asked(trees[path])]
    typed = sum(_is_typed(node) for _, node in functions)
    longest = max(functions, key=lambda each: _length(each[1]))
    return {
        "files in the fullest folder": f"{most} ({folder.relative_to(source)})",
        "modules imported in one file, p90 and most": f"{_at(imported.values(), 0.9)}, {max(imported.values())}",
        "most parameters of a function": f"{_parameters(wide[1])} ({wide[1].name})",
        "places that ask for the kind of an encoder": str(len(asked)),
        "file names in two folders": f"{len(twice)} ({', '.join(twice)})",
        "longest body of a function, lines": f"{_length(longest[1])} ({longest[1].name})",
        "functions fully typed": f"{typed / len(functions):.1%}",
        "files, lines": f"{len(files)}, {sum(len(path.read_text().splitlines()) for path in files)}",
    }


def _imported(tree: ast.Module) -> Iterator[str]:
    """The package's own modules that a file takes names from; of a folder, each module taken counts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ireu_cli":
            yield node.module


def _parameters(node: ast.FunctionDef) -> int:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def _asked(tree: ast.Module) -> Iterator[int]:
    """Lines that ask for the kind of an encoder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if asked & KINDS:
                yield node.lineno
        elif isinstance(node, ast.Compare):
            parts = [ast.unparse(part).split(".")[-1] for part in (node.left, *node.comparators)]
            if set(parts) & NAMES:
                yield node.lineno
        elif isinstance(node, ast.IfExp | ast.If) and ast.unparse(node.test).split(".")[-1] in NAMES:
            yield node.lineno


def _is_typed(node: ast.FunctionDef) -> bool:
    given = node.args
    names = [each for each in (*given.posonlyargs, *given.args, *given.kwonlyargs) if each.arg not in {"self", "cls"}]
    return node.returns is not None and all(each.annotation for each in names)


def _length(node: ast.FunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _at(values: Iterable[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
