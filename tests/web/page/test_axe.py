"""axe-core finds nothing on any state of the page."""

import pytest

from tests.axe import AXE, RUN_AXE
from tests.web.page.states import WALKS

pytestmark = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: make browser")
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "forced": {"forced_colors": "active"}}


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("walk", WALKS)
def test_no_state_has_a_violation(visit, media, walk, look):
    opened = visit(bypass_csp=True, **LOOKS[look])
    opened.page.add_script_tag(path=AXE)
    found = {name: opened.page.evaluate(RUN_AXE) for name in WALKS[walk](opened, media)}
    assert {name: violations for name, violations in found.items() if violations} == {}
    assert len(found) > 2
