"Run notebooks in a real Jupyter kernel and store clean, repeatable outputs"
import argparse, os, re, uuid
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob

def notebooks(*paths):
    "The notebooks named by `paths`, files or folders (default: all), in number order"
    for p in paths:
        if not Path(p).exists(): raise SystemExit(f'{p}: no such notebook or folder')
    ps = [Path(p).resolve() for p in paths] or [get_config().nbs_path]
    return sorted({Path(f) for p in ps for f in (nbglob(p) if p.is_dir() else [p])}, key=lambda f: f.name)

def arguments(doc):
    "Command-line arguments that running and testing share"
    a = argparse.ArgumentParser(description=doc)
    a.add_argument('paths', nargs='*', help='notebooks, or folders of them (default: all)')
    a.add_argument('--flags', default='', help='space-separated flags of cells to run after all, as for nbdev_test: --flags slow')
    return a

def directives(src): return [l.strip()[2:].strip().rstrip(':') for l in src.splitlines() if l.strip().startswith('#|')]

class Client(NotebookClient):
    "Leaves alone the cells that `nbdev_test` would skip, so their stored outputs survive"
    def __init__(self, nb, flags, **kw):
        super().__init__(nb, **kw)
        self.flags = set(flags)
    def skip(self, cell):
        ds = directives(cell.source)
        return 'eval: false' in ds or bool(self.flags & {o.split()[0] for o in ds if o}) or 'nbdev_export(' in cell.source
    async def async_execute_cell(self, cell, cell_index, **kw):
        if cell.cell_type=='code' and self.skip(cell): return cell
        return await super().async_execute_cell(cell, cell_index, **kw)

def without_stderr(nb):
    "Drop warnings and progress bars, which differ from run to run and from machine to machine"
    for c in nb.cells:
        if c.cell_type=='code': c.outputs = [o for o in c.outputs if o.get('name')!='stderr']
    return nb

def stable_widgets(nb):
    "Rename widget model ids in order of appearance and write whole floats as JavaScript does, so a re-run gives no diff"
    s = nbformat.writes(nb)
    ids = list(dict.fromkeys(re.findall(r'(?<="model_id": ")[0-9a-f]{32}', s)))
    st = nb.metadata.get('widgets', {}).get('application/vnd.jupyter.widget-state+json', {}).get('state', {})
    def refs(i):  # depth-first through the model tree, in the order the view shows it
        yield i
        for r in re.findall(r'IPY_MODEL_([0-9a-f]{32})', repr(st.get(i, {}).get('state', {}))): yield from refs(r)
    order = list(dict.fromkeys(r for i in ids for r in refs(i)))
    new = {o: uuid.uuid5(uuid.NAMESPACE_OID, f'{n}').hex for n,o in enumerate(order)}
    if st:
        keep = {new[i]: v for i,v in st.items() if i in new}
        nb.metadata['widgets']['application/vnd.jupyter.widget-state+json']['state'] = dict(sorted(keep.items()))
        s = nbformat.writes(nb)
    for o,n in new.items(): s = s.replace(o, n)
    s = re.sub(r'(?<="(?:max|min)": )(-?\d+)\.0\b', r'\1', s)
    return nbformat.reads(s, 4)

def run_nb(path, flags, timeout=600):
    os.environ['TQDM_DISABLE'] = '1'  # a stored progress bar is a diff
    nb = nbformat.read(path, 4)
    Client(nb, flags, timeout=timeout, kernel_name='python3', resources=dict(metadata=dict(path=str(path.parent)))).execute()
    nbformat.write(stable_widgets(without_stderr(nb)), path)
    nbdev_clean.__wrapped__(str(path))

def main():
    a = arguments(__doc__)
    a.add_argument('--timeout', type=int, default=600, help='seconds allowed for a cell (default: %(default)s)')
    args = a.parse_args()
    skip = set(get_config().tst_flags.split()) - set(args.flags.split())
    for f in notebooks(*args.paths):
        try: run_nb(f, skip, args.timeout)
        except CellExecutionError as e: raise SystemExit(f'{f.name} failed, and is left as it was\n{e}')
        print('ran', f.name, flush=True)

if __name__=='__main__': main()
