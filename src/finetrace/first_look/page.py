"""The page of a first look: one file, with its figures in it, readable in light and dark."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetrace.first_look.figures import draw_all
from finetrace.first_look.numbers import rows_of
from finetrace.first_look.run import Look

PACKAGE_DATA = ("templates",)
TEMPLATES = Path(__file__).parent / "templates"


def page(result: Look, command: str) -> str:
    """The page as HTML. command: with which it is made again."""
    models = [source.name for source in result.sources]
    facts = [(source.named + (f" @ {source.commit[:12]}" if source.commit else ""),
              [f"{numbers['parameters']:,}", numbers["layers"] - 1, numbers["dim"], f"{numbers['tokens']:,}",
               numbers["cut"]])
             for source in result.sources for numbers in [result.facts[source.name]]]
    rows = " and ".join(f"{count} of {split}" for split, count in result.rows.items())
    classes = result.task.label_names
    named = f"{len(classes)} classes" + (f" ({', '.join(classes)})" if len(classes) <= 6 else "")
    longest = min(numbers["max_length"] for numbers in result.facts.values())
    return _environment().get_template("look.html").render(
        title=f"First look: {', '.join(models)} on {result.task.name}",
        intro=f"{result.task.name}: {named}; {rows}. Every layer of every model, as it is: nothing was trained but the "
              f"probes. What is after the {longest}th token of a row is not read.",
        facts_header=["parameters", "layers", "width", "tokens", "rows cut"], facts=facts, models=models,
        rows=rows_of(result), notes=result.notes, figures=draw_all(result),
        made=f"Made with {command} in {result.seconds:.0f} s. All numbers, layer by layer with their intervals, are in "
             "table.parquet beside this page.")


@cache
def _environment() -> Environment:
    """The template. Every text is escaped but the figures, whose texts matplotlib escapes."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["as_markup"] = Markup
    return environment
