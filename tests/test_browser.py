'JupyterLab in a real browser: pages open unchanged, the dial draws where it is pointed, the rating card saves'
import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from browser import lab, opened

root = Path(__file__).parent.parent
sys.path.insert(0, str(root/'tools'))

import plan # noqa: E402

BAR = '''from emofeedback.system import progress_bar
with progress_bar(3, 'draw', 'pictures') as bar: bar.update(3)'''
DIAL = '''from emofeedback.pipeline import EmoFeedback
from emofeedback.widgets.dial import Dial
dial = Dial(EmoFeedback.mini())
dial'''
PAGES = ['index.ipynb', 'widgets/01_dial.ipynb']
NOTEBOOK = 'jupyterapp.shell.currentWidget'
# 64 colours of a picture, drawn on a canvas: its pixels, and not its address
COLOURS = '''(async i => { await i.decode()
    const c = new OffscreenCanvas(8, 8).getContext('2d')
    c.drawImage(i, 0, 0, 8, 8)
    return [...c.getImageData(0, 0, 8, 8).data] })'''

def one_of_both(path):
    'The rating card as its page makes it, a progress bar, and the dial: a notebook for one kernel'
    page = json.loads((root/'nbs/people/03_widget.ipynb').read_text(encoding='utf-8'))
    cells = [plan.Cell('', c['cell_type'], ''.join(c['source'])) for c in page['cells']]
    code = [c.source for c in cells if plan.flag(c) and 'recorded' not in c.source]
    made = [nbformat.v4.new_code_cell(c) for c in [*code, BAR, DIAL]]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=dict(kernelspec=page['metadata']['kernelspec'])), path)

@pytest.fixture(scope='module')
def b(tmp_path_factory):
    'A browser beside a JupyterLab with some pages'
    folder = tmp_path_factory.mktemp('lab')
    for p in PAGES:
        (folder/p).parent.mkdir(exist_ok=True)
        shutil.copy(root/'nbs'/p, folder/p)
    shutil.copy(root/'settings.ini', folder)
    one_of_both(folder/'both.ipynb')
    with opened(tmp_path_factory.mktemp('chromium')) as b, lab(folder, b) as b.address:
        b.folder = folder
        yield b

def go(b, page):
    'Open a notebook, and wait until its kernel is there'
    b.call('Page.navigate', url=f'{b.address}{page}?reset')
    b.until(lambda: b.js(f'window.jupyterapp?.shell?.currentWidget?.context?.path=={page!r}'), 120)
    b.until(lambda: b.js(f"{NOTEBOOK}.sessionContext?.session?.kernel?.status==='idle'"), 120)

def node(selector): return f'document.querySelector({selector!r})'

def says(b, selector, text, seconds=60):
    'Wait until a node says something'
    b.until(lambda: text in (b.js(f'{node(selector)}?.textContent') or ''), seconds)

def colours(b, name='trained'): return b.js(f"{COLOURS}({node(f'.ed-pictures img[alt*={name}]')})")

def differs(b, before, name='trained'):
    'Wait until the picture has other pixels; these'
    return b.until(lambda: (now := colours(b, name))!=before and now, 60)

def to(b, card):
    'Bring a card into the middle of the window'
    b.js(f"{node(card)}.scrollIntoView({{block: 'center'}})")

def test_index_opens_on_its_dial(b):
    'Before the first save of that page: from then on JupyterLab trusts it, and shows the widget itself'
    go(b, 'index.ipynb')
    still = node('.jp-OutputArea img[alt="the plane"]')
    assert b.until(lambda: b.js(f'{still}?.complete && {still}.getBoundingClientRect().bottom<innerHeight'))
    cells = f'{NOTEBOOK}.content'
    found = f"{cells}.widgets.findIndex(c => c.model.sharedModel.getSource().includes('Dial('))"
    b.js(f"{cells}.activeCellIndex = {found}; void jupyterapp.commands.execute('notebook:run-cell')")
    says(b, '.ed-says', 'read as', 180)
    to(b, '.ed-card .er-plane')
    before = colours(b)
    b.click(*b.at(-2, 2, '.ed-card'))
    differs(b, before)
    b.js(f'{NOTEBOOK}.context.model.dirty = false') # or the browser asks before it leaves

@pytest.mark.parametrize('page', PAGES)
def test_opening_changes_nothing(b, page):
    go(b, page)
    b.until(lambda: b.js(f"!!{NOTEBOOK}.context.model.getMetadata('language_info')"))
    b.js('new Promise(done => setTimeout(done, 500))')
    assert b.js(f'{NOTEBOOK}.context.model.dirty') is False
    b.js(f'{NOTEBOOK}.context.save()')
    assert (b.folder/page).read_bytes()==(root/'nbs'/page).read_bytes() # saved all the same, it is what it was

def test_card_saves_after_run_all(b):
    go(b, 'both.ipynb')
    b.js("void jupyterapp.commands.execute('notebook:run-all-cells')") # not waited for
    says(b, '.ed-says', 'read as', 180)
    to(b, '.er-plane')
    says(b, '.er-count', 'picture 1 of 12')
    b.click(*b.at(1.5, -1))
    for k in ('3', 'Enter'): b.key(k)
    says(b, '.er-count', 'picture 2 of 12')
    assert b.js(f"{node('.er-note')}.textContent")==''

def test_dial_draws_where_it_is_pointed(b):
    to(b, '.ed-card .er-plane')
    first = colours(b)
    b.click(*b.at(2.5, -2, '.ed-card'))
    calm = differs(b, first)
    says(b, '.ed-says', 'read as +')
    for kind,point in (('Pressed', (2.5, -2)), ('Moved', (1, 0)), ('Moved', (-2, 2)), ('Released', (-2, 2))):
        b.mouse(kind, *b.at(*point, '.ed-card'))
    says(b, '.ed-card .er-where', 'valence \u22122.00, arousal +2.00')
    stormy = differs(b, calm)
    b.until(lambda: b.js("document.querySelectorAll('.ed-strip li').length")==3)
    b.key('ArrowLeft')
    says(b, '.ed-card .er-where', 'valence \u22122.25')
    differs(b, stormy)
    b.press('.ed-pick:nth-of-type(3)')
    b.until(lambda: b.js("document.querySelectorAll('.ed-pictures img').length")==2)
    assert colours(b)!=colours(b, 'base')
    b.press('.ed-strip li:nth-of-type(2) button')
    b.until(lambda: colours(b)==calm)

def sources(nb): return [''.join(c['source']) for c in nb['cells']]

def test_stored_clean(b):
    before = json.loads((b.folder/'both.ipynb').read_text(encoding='utf-8'))
    now = b.js(f'{NOTEBOOK}.context.model.toJSON()')
    assert sources(now)==sources(before) # no key became a command of the notebook
    assert any('%|' in json.dumps(c['outputs']) for c in now['cells'])
    b.js("jupyterapp.commands.execute('docmanager:save')")
    b.until(lambda: b.js(f'!{NOTEBOOK}.context.model.dirty'))
    nb = json.loads((b.folder/'both.ipynb').read_text(encoding='utf-8'))
    outputs = [o for c in nb['cells'] for o in c['outputs']]
    assert outputs and not [o for o in outputs if o.get('name')=='stderr' or '%|' in json.dumps(o)]
    assert nb['metadata']['kernelspec']['display_name']=='python3' and 'language_info' not in nb['metadata']
    assert all(c['execution_count'] is None for c in nb['cells'])
