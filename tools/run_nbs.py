'Run notebooks in a real Jupyter kernel, and store clean, repeatable outputs with what they came from'
import argparse
import json
import os
import re
import uuid
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean

import plan

WIDGETS = 'application/vnd.jupyter.widget-state+json'

def notebooks(*paths) -> list[Path]:
    'The notebooks named by `paths`, files or folders (default: all), in reading order'
    named = [Path(p).resolve() for p in paths]
    for p in named:
        if not p.exists(): raise SystemExit(f'{p}: no such notebook or folder')
    found = [o.path for o in plan.pages()]
    return [f for f in found if not named or any(f.is_relative_to(p) for p in named)]

def arguments(doc:str) -> argparse.ArgumentParser:
    'Command-line arguments that running and testing share'
    a = argparse.ArgumentParser(description=doc)
    a.add_argument('paths', nargs='*', help='notebooks, or folders of them (default: all)')
    a.add_argument('--flags', default='', help='cells to run after all, as for nbdev_test: --flags slow')
    return a

class Client(NotebookClient):
    'Leaves alone the cells that `nbdev_test` would skip, so their stored outputs survive'
    def __init__(self, nb, flags:set[str], **kw):
        super().__init__(nb, **kw)
        self.flags = flags

    async def async_execute_cell(self, cell, cell_index, **kw):
        if plan.flag(plan.Cell('', cell.cell_type, cell.source)) not in self.flags: return cell
        return await super().async_execute_cell(cell, cell_index, **kw)

def passing(output) -> bool:
    'A warning or a progress bar: differs from run to run and from machine to machine'
    text = output.get('data', {}).get('text/plain', '')
    return output.get('name')=='stderr' or re.search(r'\d%\|', ''.join(text)) is not None

def without_stderr(nb):
    'Drop warnings and progress bars'
    for c in nb['cells']:
        if c['cell_type']=='code': c['outputs'] = [o for o in c['outputs'] if not passing(o)]
    return nb

def as_javascript(number:str) -> int|float:
    'A float as a browser writes it: 2.0 as 2'
    x = float(number)
    return int(x) if x.is_integer() else x

def stable_widgets(nb):
    'Rename widget ids in order of appearance, and write whole floats as JavaScript does: a re-run gives no diff'
    text = nbformat.writes(nb)
    ids = list(dict.fromkeys(re.findall(r'(?<="model_id": ")[0-9a-f]{32}', text)))
    state = nb.metadata.get('widgets', {}).get(WIDGETS, {}).get('state', {})
    def refs(i): # depth-first through the model tree, in the order the view shows it
        yield i
        for r in re.findall(r'IPY_MODEL_([0-9a-f]{32})', repr(state.get(i, {}).get('state', {}))): yield from refs(r)
    order = list(dict.fromkeys(r for i in ids for r in refs(i)))
    new = {o: uuid.uuid5(uuid.NAMESPACE_OID, f'{n}').hex for n,o in enumerate(order)}
    if state:
        keep = dict(sorted((new[i], v) for i,v in state.items() if i in new))
        nb.metadata['widgets'][WIDGETS]['state'] = json.loads(json.dumps(keep), parse_float=as_javascript)
        text = nbformat.writes(nb)
    for o,n in new.items(): text = text.replace(o, n)
    return nbformat.reads(text, 4)

def note_inputs(nb, flags:set[str], models:str) -> None:
    'Record what was run; a group of cells that was left alone keeps its older record, if it still has cells'
    cells = [plan.Cell('', c.cell_type, c.source) for c in nb.cells]
    ran = nb.metadata.setdefault(plan.pkg, {}).get('ran_on', {})
    now = plan.inputs(cells, models)
    new = {f: now[f] if f in flags else ran.get(f) for f in now}
    nb.metadata[plan.pkg] = dict(ran_on={f: o for f,o in new.items() if o})

def run_nb(path:Path, flags:set[str], timeout:int=600) -> None:
    'Run one notebook in its own folder, and store it'
    os.environ['TQDM_DISABLE'] = '1' # a stored progress bar is a diff
    nb = nbformat.read(path, 4)
    where = dict(metadata=dict(path=str(path.parent)))
    Client(nb, flags, timeout=timeout, kernel_name='python3', resources=where).execute()
    nb = stable_widgets(without_stderr(nb))
    note_inputs(nb, flags, plan.models())
    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(str(path))

def main() -> None:
    a = arguments(__doc__)
    a.add_argument('--timeout', type=int, default=600, help='seconds allowed for a cell (default: %(default)s)')
    a.add_argument('--stale', action='store_true', help='only pages whose code or models changed since they ran')
    args = a.parse_args()
    files, models = notebooks(*args.paths), plan.models()
    if args.stale: files = [f for f in files if plan.stale(plan.page(f), models)]
    for f in files:
        try: run_nb(f, {'always', *args.flags.split()}, args.timeout)
        except CellExecutionError as e: raise SystemExit(f'{f.name} failed, and is left as it was\n{e}') from e
        print('ran', plan.short(f), flush=True)

if __name__=='__main__': main()
