'What a notebook cannot check about itself: that generated files match it, and that the laws of the house hold'
import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

root = Path(__file__).parent.parent
bin = Path(sys.executable).parent
sys.path.insert(0, str(root/'tools'))

import house # noqa: E402
import plan # noqa: E402

skip = shutil.ignore_patterns('.git', '.venv', '_docs', '_proc', 'runs', 'checkpoints', '*.egg-info', '__pycache__',
                              '.ipynb_checkpoints')

def run(*args, cwd:Path=root) -> subprocess.CompletedProcess:
    env = dict(os.environ, NO_COLOR='1')
    return subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True, env=env)

@pytest.fixture(scope='module')
def copy(tmp_path_factory) -> Path:
    'A scratch copy of the project, to run the writing commands in'
    d = tmp_path_factory.mktemp('repo')/root.name
    shutil.copytree(root, d, ignore=skip)
    return d

def differing(copy:Path, pattern:str) -> list[str]:
    'Files that the copy and the project do not have alike'
    out = {'.ipynb_checkpoints', '__pycache__'}
    files = {p.relative_to(d) for d in (copy, root) for p in d.glob(pattern) if not out & set(p.parts)}
    def read(p): return p.read_bytes() if p.exists() else None
    return [str(f) for f in sorted(files) if read(copy/f)!=read(root/f)]

# ---- generated files -------------------------------------------------------------------------------------------------

def test_export_in_sync(copy):
    for p in (copy/'emofeedback').rglob('[!_]*.py'): p.unlink()
    (copy/'emofeedback/_modidx.py').unlink()
    r = run(bin/'nbdev_export', cwd=copy)
    assert r.returncode==0, r.stderr
    assert not differing(copy, 'emofeedback/**/*.py'), 'run nbdev_export'

def test_notebooks_clean(copy):
    assert run(bin/'nbdev_clean', cwd=copy).returncode==0
    assert not differing(copy, 'nbs/**/*.ipynb'), 'run nbdev_clean'

def test_readme_in_sync():
    r = run(sys.executable, 'tools/build_docs.py', '--check')
    assert r.returncode==0, r.stderr

def test_a_page_maps_every_notebook():
    page = next(p for p in plan.pages() if p.name=='guide/pages')
    mapped = {(page.path.parent/o).resolve() for c in page.cells for out in c.outputs
              for o in house.links(''.join(out.get('data', {}).get('text/markdown', '')))}
    missing = [p.where for p in plan.pages() if p.name!='index' and p.path not in mapped]
    assert not missing, f'run tools/run_nbs.py {page.where}'

def test_packaged_files_are_small_and_safe():
    files = [p for p in (root/'emofeedback/checkpoints').rglob('*') if p.is_file()]
    unsafe = {'.bin', '.pt', '.pth', '.pkl', '.ckpt'}
    assert not [p for p in files if p.suffix in unsafe], 'weights are kept as safetensors only'
    assert sum(p.stat().st_size for p in files)<=40e6, 'bundled checkpoints stay within 40 MB'

def test_wheel_is_whole(copy, tmp_path):
    'Types, models and assets are in the wheel, nothing that is not of the package, and it draws outside the repository'
    shutil.copytree(root/'emofeedback/checkpoints', copy/'emofeedback/checkpoints')
    r = run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', tmp_path, copy)
    assert r.returncode==0, r.stderr
    unpacked, away = tmp_path/'unpacked', tmp_path/'away'
    away.mkdir()
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel: wheel.extractall(unpacked)
    shutil.rmtree(copy/'emofeedback/checkpoints')
    shutil.rmtree(copy/'build', ignore_errors=True)
    names = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob('*') if p.is_file()}
    data = {p.relative_to(root).as_posix() for d in ('checkpoints', 'assets') for p in (root/'emofeedback'/d).rglob('*')
            if p.is_file()}
    assert data|{'emofeedback/py.typed', 'emofeedback/__init__.pyi'}<=names
    assert {o.split('/')[0] for o in names}<={'emofeedback', next(o.split('/')[0] for o in names if '.dist-info' in o)}
    code = 'import emofeedback.cli.main as m; print(m.__file__); m.main()'
    args = 'generate lake --valence 1 --arousal 1 --rounds 0'.split()
    r = subprocess.run([sys.executable, '-c', code, *args], cwd=away, env=dict(os.environ, PYTHONPATH=str(unpacked)),
                       capture_output=True, text=True)
    assert r.stdout.startswith(str(unpacked)) and (away/'picture.png').is_file(), r.stderr

def test_front_door_leads_to_every_name():
    import emofeedback
    assert all(getattr(emofeedback, name) is not None for name in emofeedback.__all__)

def test_types_at_the_front_door():
    import emofeedback
    tree = ast.parse((root/'emofeedback/__init__.pyi').read_text(encoding='utf-8'))
    typed = {a.asname: n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.level for a in n.names}
    untyped = {'EmoFeedback', 'Feedback', 'Dial', 'GRPO', 'Matching'} # they grow by `@patch`
    assert typed=={k: v for k,v in emofeedback._home.items() if k not in untyped}

def test_console_script():
    r = run(bin/'emofeedback', '--help')
    assert r.returncode==0, r.stderr
    for command in 'demo generate rate train-judge train-generator evaluate'.split(): assert command in r.stdout

# ---- the laws of the house, and a bad example for each ---------------------------------------------------------------

broken = house.broken()

@pytest.mark.parametrize('law', broken)
def test_law(law):
    bad = broken[law]
    if bad: pytest.fail('\n'.join([*bad[:40], f'{len(bad)} in all: python tools/house.py']), pytrace=False)

def cell(source:str, kind:str='code', **output) -> plan.Cell:
    return plan.Cell('x cell 0', kind, source, (output,) if output else ())

def notebook(folder:Path, name:str, *cells:plan.Cell, **metadata) -> Path:
    'A notebook file of some cells'
    path = folder/name
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [dict(cell_type=c.kind, source=c.source, outputs=list(c.outputs)) for c in cells]
    path.write_text(json.dumps(dict(cells=found, metadata=metadata)))
    return path

ORDER = plan.floors('One: low data\nTwo: high mini cli')

def built(folder:Path, **modules) -> list[plan.Page]:
    'Pages of an own small house: file name, without its ending, -> code of the exported cell'
    for name,code in modules.items():
        path = name.replace('__', '/')
        module = '.'.join(plan.unnumbered(o) for o in path.split('/'))
        notebook(folder, f'{path}.ipynb', cell(f'#| default_exp {module}'), cell(f'#| export\n{code}'))
    return plan.pages(folder, ORDER)

def some_rooms(folder:Path, **modules) -> dict[str, plan.Room]:
    return {p.module: plan.room(p, p.cells[1].code) for p in built(folder, **modules)}

def test_order_counts_floors_then_entries_then_numbers(tmp_path):
    names = '02_low data__10_card data__09_rows 03_high cli__01_card'.split()
    found = built(tmp_path, **{n: '' for n in names})
    assert [p.name for p in found]==['low', 'data/rows', 'data/card', 'high', 'cli/card']
    assert len({p.place for p in found})==5
    notebook(tmp_path, '04_roof.ipynb')
    with pytest.raises(ValueError, match='enter roof under `floors`'): plan.pages(tmp_path, ORDER)

def test_law_gravity(tmp_path):
    code = {'01_low': 'import emofeedback.high', 'data__01_rows': 'from emofeedback.data.card import Card',
            'data__02_card': '', '03_high': 'def f():\n    from emofeedback.cli.main import app',
            'cli__01_main': 'from ..low import f'}
    bad = house.upward(some_rooms(tmp_path, **code))
    assert bad==[f'{a}, which stands above it' for a in
                 ('low imports high', 'data.rows imports data.card', 'high imports cli.main')]

def test_law_front_door(tmp_path):
    pages = built(tmp_path, **{'01_low': 'from emofeedback import Affect'})
    other = plan.Page(pages[0].path, 'Two', 'core', (1, 0, 0))
    rooms = dict(low=plan.room(pages[0], pages[0].cells[1].code), core=plan.room(other, ''))
    assert plan.edges(rooms)==[('low', 'core', 'top')]
    assert house.upward(rooms)==['low imports core, which stands above it']

def test_law_guests(tmp_path):
    order = plan.floors('One: mini\nTwo: feedback')
    for name in ('mini/01_oracle', 'feedback/01_loop'): notebook(tmp_path, f'{name}.ipynb')
    mini, loop = plan.pages(tmp_path, order)
    rooms = {'mini.oracle': plan.room(mini, ''), 'feedback.loop': plan.room(loop, 'from ..mini.oracle import Oracle')}
    assert house.guests(rooms)==['feedback.loop imports mini.oracle, but works for any model']

def test_law_heavy_tops(tmp_path):
    code = 'from transformers import AutoModel\ndef f():\n    import trl'
    bad = house.heavy_tops(some_rooms(tmp_path, **{'01_low': code}))
    assert bad==['low imports transformers at its top: import it in the functions that need it']

def test_law_homes(tmp_path):
    built(tmp_path, **{'01_low': '', '05_high': '', 'data__01_rows': '', 'cli__02_main': '', 'cli__02_data': ''})
    notebook(tmp_path, 'mini/01_paint.ipynb', cell('#| default_exp mini.brush'))
    bad = house.homeless(plan.pages(tmp_path, ORDER), {'low', 'high', 'data.rows', 'cli.main', 'cli.data', 'attic'})
    assert bad==['01_paint.ipynb exports to mini.brush: #| default_exp mini.paint',
                 '01_paint.ipynb has no module: run nbdev_export',
                 'emofeedback.attic has no page: delete it, or write one',
                 '02_data.ipynb and 02_main.ipynb have one place: change a number']
    notebook(tmp_path, '06_low.ipynb', cell('#| default_exp low'))
    assert any('has a smaller number' in o for o in house.homeless(plan.pages(tmp_path, ORDER), set()))

CODE = { # law -> code that breaks it, code that keeps it
    house.wide: (['x = 1 # '+'-'*120], ['#| fig-cap: '+'long '*40+'\nx = 1', 'x = 1 # '+'-'*112]),
    house.joined: (['a = 1; b = 2', 'def f(): a = 1; return a', 'f();\nx'], ["s = 'a;b' # ;", 'plt.plot([1]);']),
    house.packed: (['x = 1 if a else 2 if b else 3', "s = ' and'*(n>1)", "s = (not n)*f'{a}'", 'a and f(a)'],
                   ["s = ' and' if n>1 else ''", "s = '-'*20", 'x = a and f(a)', 'if a: f(a)']),
    house.unasserted: (['try: f()\nexcept ValueError as e: print(e)', 'try: f()\nexcept ValueError: pass',
                        "try: f()\nexcept ValueError as e: assert 'x' in str(e)"],
                       ["with expect_fail(ValueError, 'x'): f()",
                        'try: f()\nexcept ValueError as e: print(e)\nelse: raise AssertionError',
                        'def why():\n    try: f()\n    except ValueError as e: return str(e)'])}

@pytest.mark.parametrize('law', CODE, ids=lambda law: law.__name__)
def test_law_of_code(law):
    bad, good = CODE[law]
    assert all(law(cell(o)) for o in bad)
    assert [law(cell(o)) for o in good]==[[]]*len(good)

def test_law_of_size():
    def body(n): return 'def f():\n'+'    x = 1\n'*(n-1)
    assert house.large('m', body(41))==['m: f has 41 lines, at most 40']
    assert house.large('m', body(40))==house.large('m', body(60).replace('f()', 'train()'))==[]
    assert house.large('m', 'x = 1\n'*301)==['m: 301 lines, at most 300: take the second idea out']
    a, b, c = 'class Run: pass', 'class Run(Base): pass', 'class Runner: pass'
    assert house.runs(dict(a=a, b=b))==['class Run is written in a and in b: one is enough']
    assert house.runs(dict(a=a, c=c))==[]

def one_page(folder:Path, *cells:plan.Cell, **metadata) -> plan.Page:
    return plan.page(notebook(folder, '01_low.ipynb', *cells, **metadata), folder, ORDER)

def test_law_links(tmp_path):
    (tmp_path/'data').mkdir()
    (tmp_path/'data/01_rows.ipynb').touch()
    text = '[a](data/01_rows.ipynb#Rows) [b](data/10_rows.ipynb) ![c](gone.png) [d](https://x.y/z) [e](#here) `[f](g)`'
    output = dict(output_type='display_data', data={'text/markdown': ['[i](old.ipynb)']})
    page = one_page(tmp_path, cell(text+'\n```\n[g](h)\n```', 'markdown'), cell('1', **output))
    assert house.dead_links(page)==[f'01_low.ipynb cell {i} is not there' for i in
                                    ('0: data/10_rows.ipynb', '0: gone.png', '1: old.ipynb')]

def test_law_visible_imports(tmp_path):
    hidden, seen = cell('#| hide\nimport numpy as np\nimport tempfile'), cell('import tempfile')
    page = one_page(tmp_path, hidden, seen, cell('np.ones(2), tempfile'), cell('#| echo: false\nnp'))
    assert house.hidden_imports(page)==['01_low.ipynb: np is used, and imported in a hidden cell']

def test_law_form(tmp_path):
    page = one_page(tmp_path, cell('# Title', 'markdown'), cell("read('/home/me/x')"), cell('1', output_type='error'))
    bad = [o.partition(': ')[2] for o in house.form(page)]
    assert bad==['starts without a title and a one-line summary', 'has no ## Extending it', 'has no ## Gotchas',
                 'has no ## Sources', 'a path of one machine in 01_low.ipynb cell 1',
                 'a stored error in 01_low.ipynb cell 2']
    ends = [cell(f'## {o}', 'markdown') for o in ('Extending it', 'Gotchas', 'Sources')]
    assert house.form(one_page(tmp_path, cell('# Title\n\n> summary', 'markdown'), *ends))==[]

def test_law_streaks(tmp_path):
    imports, small = cell('#| export\nimport os'), cell('#| export\nx = 1')
    assert house.streaks(one_page(tmp_path, imports, *[small]*3, cell('x'), small))==[]
    assert len(house.streaks(one_page(tmp_path, *[small]*3, cell('prose', 'markdown'), small)))==1
    long = cell('#| export\n'+'x = 1\n'*36)
    assert house.streaks(one_page(tmp_path, long))==['01_low.ipynb cell 0: 36 lines exported, at most 35']

def test_law_stored_outputs(tmp_path):
    sources = '#| fig-cap: a\nx = 1', '#| slow\nx = 2', '#| eval: false\nx = 3'
    cells = [cell(o) for o in sources]
    ran = plan.inputs(cells, 'm1')
    assert list(ran)==['always', 'slow']
    def stale(*cells, models='m1', ran=ran):
        page = one_page(tmp_path, *cells, cell('prose', 'markdown'), emofeedback=dict(ran_on=ran))
        return [o.partition(': ')[2] for o in plan.stale(page, models)]
    assert stale(*cells)==stale(cell('#| fig-cap: b\nx = 1'), *cells[1:])==stale(*cells, cell('more', 'markdown'))==[]
    again = 'make run ARGS="01_low.ipynb'
    assert stale(cell('x = 5'), *cells[1:])==[f'code of its always cells changed since it ran: {again}"']
    slow = stale(cells[0], cell('#| slow\nx = 5'))
    assert slow==[f'code of its slow cells changed since it ran: {again} --flags slow"']
    assert len(stale(*cells, models='m2'))==len(stale(*cells, ran={}))==2

def test_law_lint(tmp_path, monkeypatch):
    (tmp_path/'pyproject.toml').write_bytes((root/'pyproject.toml').read_bytes())
    (tmp_path/'tests').mkdir()
    (tmp_path/'tests/test_x.py').write_text('import os, sys\nx = "a"\nprint(nothing)\nimport re # '+'-'*120+'\n')
    monkeypatch.setattr(house, 'root', tmp_path)
    assert {o.split()[1] for o in house.lint()}>={'E401', 'E402', 'E501', 'F401', 'F821', 'Q000'}

def test_recording_keeps_what_did_not_run():
    import nbformat
    from run_nbs import note_inputs
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in ('x = 1', '#| slow\nx = 2')])
    def ran(): return nb.metadata['emofeedback']['ran_on']
    note_inputs(nb, {'always'}, 'm1')
    assert set(ran())=={'always'}
    note_inputs(nb, {'always', 'slow'}, 'm1')
    slow = ran()['slow']
    nb.cells[1].source += '1'
    note_inputs(nb, {'always'}, 'm2')
    assert ran()['slow']==slow and ran()['always']['models']=='m2'

def test_make_leaves_a_linked_environment_alone(tmp_path):
    'An installation through the link would turn the other copy to this one'
    (tmp_path/'other/bin').mkdir(parents=True)
    (tmp_path/'other/bin/python').touch()
    (tmp_path/'.venv').symlink_to(tmp_path/'other')
    for name in ('Makefile', 'settings.ini', 'setup.py', 'constraints.txt'): shutil.copy(root/name, tmp_path)
    made = run('make', '-s', '.venv/.installed', cwd=tmp_path)
    assert made.returncode and 'delete the link' in made.stderr
    assert sorted(p.name for p in (tmp_path/'other').rglob('*')) == ['bin', 'python']
