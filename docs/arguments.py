"""Write docs/arguments.md from the declaration: ``python docs/arguments.py``."""

from __future__ import annotations

from pathlib import Path

from approxifer.pipeline.planning.arguments import (
    FORMER,
    default_in_words,
    described,
    grouped,
    required,
)

HEAD = """# Arguments

Of `approxifer.score`, `submit` and job files under these names, and of the command line as
`--name-of-it`. Made by `python docs/arguments.py` from `pipeline/planning/arguments.py`.
"""


def page() -> str:
    """The page."""
    parts = [HEAD]
    for group, arguments in grouped().items():
        parts.append(f"## {group}\n")
        parts.append("| argument | default | meaning |\n|---|---|---|")
        for one in arguments:
            about = described(one)
            default = "required" if required(one) else default_in_words(one)
            python = "" if about.shell else " (Python only)"
            text = " ".join(filter(None, (about.help, about.more))).replace("|", "\\|")
            letter = f", `-{about.letter}`" if about.letter else ""
            parts.append(f"| `{one.name}`{letter}{python} | {default} | {text} |")
        parts.append("")
    parts.append("## Of earlier versions\n")
    parts.append("| argument | give |\n|---|---|")
    parts += [f"| `{name}` | {instead} |" for name, instead in FORMER.items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
