"""axe-core, which finds barriers on a page: `make browser` installs it."""

from pathlib import Path

AXE = Path(__file__).parent / "export" / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`)"""
