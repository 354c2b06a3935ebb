"""What a cell prints stands in one block for each stream, though it comes in pieces of a hundred characters."""

from __future__ import annotations

from typing import Any

from docutils import nodes


def join(app: Any, doctree: nodes.document) -> None:
    """Joins the blocks of each cell's output that come from the same stream."""
    for cell in doctree.findall(lambda node: isinstance(node, nodes.Element) and "cell_output" in node["classes"]):
        first: dict[tuple[str, ...], nodes.literal_block] = {}
        for block in [*cell.findall(nodes.literal_block)]:
            name = tuple(block["classes"])
            if "stream" not in name:
                continue
            if name in first:
                first[name] += nodes.Text(block.astext())
                block.parent.remove(block)
            else:
                first[name] = block
        for block in first.values():
            block.rawsource = block.astext()
            block.children[:] = []
            block += nodes.Text(block.rawsource)


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", join)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
