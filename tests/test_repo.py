"What a notebook cannot check about itself: that generated files match it, and that the house rules hold"
import ast, json, os, re, shutil, statistics, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
bin = Path(sys.executable).parent
nbs = sorted((p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts and not any(o.startswith('_') for o in p.parts)), key=lambda p: p.name)
modules = sorted(p for p in (root/'emofeedback').rglob('*.py') if not p.name.startswith('_'))
skip = shutil.ignore_patterns('.git', '.venv', '_docs', '_proc', 'runs', 'checkpoints', '*.egg-info', '__pycache__', '.ipynb_checkpoints')

def run(*args, cwd=root): return subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True, env=dict(os.environ, NO_COLOR='1'))
def rel(ps): return [p.relative_to(root).as_posix() for p in ps]

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A scratch copy of the project, to run the writing commands in"
    d = tmp_path_factory.mktemp('repo')/root.name
    shutil.copytree(root, d, ignore=skip)
    return d

def differing(copy, pat):
    "Files by glob `pat` that the copy and the project do not have alike"
    files = {p.relative_to(d) for d in (copy, root) for p in d.glob(pat) if not {'.ipynb_checkpoints', '__pycache__'} & set(p.parts)}
    read = lambda p: p.read_bytes() if p.exists() else None
    return [str(f) for f in sorted(files) if read(copy/f)!=read(root/f)]

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

def test_readme_maps_every_notebook():
    text = (root/'README.md').read_text(encoding='utf-8')
    assert not [p for p in rel(nbs) if p!='nbs/index.ipynb' and f']({p})' not in text], 'run tools/run_nbs.py nbs/index.ipynb, then tools/build_docs.py'

def read_cells(fn): return [(c['cell_type'], ''.join(c['source']), c.get('outputs', [])) for c in json.loads(fn.read_text(encoding='utf-8'))['cells']]
def exported(src): return re.search(r'^#\|\s*exports?\b', src, flags=re.M)
def functions(code): return [f for f in ast.walk(ast.parse(code)) if isinstance(f, ast.FunctionDef)]
def trains(f): return f.name.startswith(('train', 'fit', 'sft', 'grpo'))  # the one kind of function that may be long
def code_lines(src):
    "Lines of code; a signature counts as one, however many parameters it documents"
    return sum(bool(l.strip()) and not l.startswith('#|') for l in src.splitlines()) - sum(f.body[0].lineno-f.lineno-1 for f in functions(src) if f.body[0].lineno>f.lineno)

@pytest.mark.parametrize('fn', nbs, ids=rel(nbs))
def test_notebook_form(fn):
    cells = read_cells(fn)
    kind,src,_ = cells[0]
    assert kind=='markdown' and re.match(r'# .+\n\n> .+', src), 'starts with a title and a one-line summary'
    assert fn.stat().st_size<=400*1024, f'{fn.stat().st_size//1024} KB: store smaller pictures'
    for kind,src,outs in cells:
        assert not any(o['output_type']=='error' for o in outs), f'a stored error after:\n{src}'
        assert not re.search(r'(^|[\s\'"(])/(home|root|tmp|work|Users)/', src+json.dumps([o.get('text', o.get('data', {}).get('text/plain')) for o in outs])), f'a path of one machine in or after:\n{src}'

def exported_cells(fn): return [s for k,s,_ in read_cells(fn) if k=='code' and exported(s)]

@pytest.mark.parametrize('fn', nbs, ids=rel(nbs))
def test_exported_cells_are_small(fn):
    big = [s for s in exported_cells(fn) if code_lines(s)>(60 if any(trains(f) for f in functions(s)) else 25)]
    assert not big, '\n\n'.join(f'{code_lines(s)} lines:\n{s[:200]} ...' for s in big)

def test_most_exported_cells_are_very_small():
    assert statistics.median(code_lines(s) for fn in nbs for s in exported_cells(fn))<=10

@pytest.mark.parametrize('fn', modules, ids=rel(modules))
def test_modules_are_small(fn):
    code = fn.read_text(encoding='utf-8')
    n = len(code.splitlines())
    assert n<=250, f'{n} lines'
    for f in functions(code): assert (size := f.end_lineno-f.lineno+1)<=(60 if trains(f) else 40), f'{f.name}: {size} lines'

def test_lint():
    r = run(sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format', 'concise', 'emofeedback', 'tools', 'tests')
    assert r.returncode==0, r.stdout

def test_packaged_files_are_small_and_safe():
    files = [p for p in (root/'emofeedback/checkpoints').rglob('*') if p.is_file()]
    assert not [p for p in files if p.suffix in {'.bin', '.pt', '.pth', '.pkl', '.ckpt'}], 'weights are kept as safetensors only'
    assert sum(p.stat().st_size for p in files)<=30e6, 'bundled checkpoints stay within 30 MB'

def test_console_script():
    r = run(bin/'emofeedback', '--help')
    assert r.returncode==0, r.stderr
    for command in 'demo generate rate train-judge train-generator evaluate'.split(): assert command in r.stdout
