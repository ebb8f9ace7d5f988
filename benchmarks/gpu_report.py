"""What gpu_check.py found, as a page; and what follows from it for the recipes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hkrun.sweep.pack_sizes import compare_steps

RECIPES = {"cifar": ("cifar10", "cifar100"), "digits": ("digits",)}  # whose networks the sizes have
COLUMNS = (
    *("precision", "pack", "CUDA graphs", "ms per seed-step", "from", "to", "of them, host before the step"),
    *("times the field's loop", "peak GB", "estimated GB"),
)


def find_packs(steps: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """`pack_cuda` of the recipes of each size, from float32 as it trains: with graphs where they worked.

    Args:
        steps: The rows of the table, see `gpu_check.Bench.time_pack`.
    """
    found: dict[str, int] = {}
    for name, recipes in RECIPES.items():
        rows = [row for row in steps if (row["size"], row["precision"]) == (name, "float32")]
        milliseconds = {row["pack"]: row["ms"] for row in sorted(rows, key=lambda row: row["graphs"] == "on")}
        if milliseconds:
            found |= dict.fromkeys(recipes, max(compare_steps(milliseconds)))
    return found


def write_report(found: Mapping[str, Any]) -> Iterator[str]:
    """The results in Markdown, also of a check that broke off.

    Args:
        found: What gpu_check.json holds.
    """
    conditions = found["conditions"]
    measured = f"measured ({conditions['time'][:10]}, {conditions['device']})"
    yield f"# hkrun on {conditions['device']}\n\nAll: {measured}, commit {conditions['commit']}.\n\n"
    for name, value in conditions.items():
        yield f"- {name}: {json.dumps(value) if isinstance(value, dict) else value}\n"
    if "tests" in found:
        yield from _describe_tests(found["tests"])
    yield "\n## Curves in float64 beside the CPU's\n\n"
    for curve in found.get("curves", ()):
        yield (
            f"- {curve['method']}, {curve['seeds']} seeds together, {curve['epochs']} epochs: largest "
            f"difference {curve['largest_difference']:.1e}, {'agree' if curve['agree'] else '**DIFFER**'}\n"
        )
    for name, field_ms in found.get("field_ms", {}).items():
        yield f"\n## Seed-steps: {name}\n\nThe field's loop: {field_ms:.3f} ms.\n\n"
        yield f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        yield from (_describe_step(row) for row in found["steps"] if row["size"] == name)
    yield from (f"\nLeft out: {line}\n" for line in found.get("left_out", ()))
    if found.get("pack_cuda"):
        yield "\n## For the recipes\n\n"
        for recipe, value in found["pack_cuda"].items():
            yield f'- {recipe}.toml: `pack_cuda = {{ value = {value}, label = "{measured}" }}`\n'


def _describe_tests(tests: Mapping[str, Any]) -> Iterator[str]:
    outcome = "all passed" if tests["passed"] else "**FAILED**"
    yield f"\n## Tests\n\n{outcome} in {tests['seconds']:.0f} s\n\n"
    yield from (f"- {line}\n" for line in tests["lines"])
    if tests["failures"]:
        yield "\n```\n" + "".join(f"{line}\n" for line in tests["failures"]) + "```\n"


def _describe_step(row: Mapping[str, Any]) -> str:
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}"
    times = " | ".join(f"{row[name]:.4f}" for name in ("ms", "from", "to", "host_ms"))
    return (
        f"| {row['precision']} | {row['pack']} | {row['graphs']} | {times} | {row['times_field']:.1f} | "
        f"{peak} | {row['estimated_bytes'] / 1e9:.2f} |\n"
    )
