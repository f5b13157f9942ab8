'The plan of the house: its order, its pages, what their outputs came from, and what each module imports'
import ast
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name

root = Path(__file__).resolve().parent.parent
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
nbs, lib, pkg = root/cfg['nbs_path'], root/cfg['lib_path'], cfg['lib_name']

# ---- the order -------------------------------------------------------------------------------------------------------

def floors(text:str=None) -> list[tuple[str, list[str]]]:
    'Titles of the floors in reading order, and what stands on each: root notebooks and folders'
    lines = (cfg['floors'] if text is None else text).strip().splitlines()
    return [(title.strip(), names.split()) for title,_,names in (o.partition(':') for o in lines)]

def stands_alone(entry:str) -> bool: return entry in cfg['without_modules'].split() # its pages export nothing

@dataclass(frozen=True)
class Cell:
    'One cell of a notebook'
    where:str # file and number, for messages
    kind:str # 'code' or 'markdown'
    source:str
    outputs:tuple=()

    @cached_property
    def directives(self) -> dict[str, str]:
        return dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', self.source, flags=re.M))

    @cached_property
    def code(self) -> str:
        'The source without directives, line numbers kept'
        return re.sub(r'^#\|.*$', '', self.source, flags=re.M) if self.kind=='code' else ''

    @property
    def exported(self) -> bool: return bool({'export', 'exports', 'exporti'} & set(self.directives))
    @property
    def hidden(self) -> bool: return 'hide' in self.directives or self.directives.get('include')=='false'
    @property
    def machinery(self) -> bool: return 'nbdev_export(' in self.code # the last cell, which writes the modules

@dataclass(frozen=True)
class Page:
    'One notebook and its place'
    path:Path
    floor:str # title
    entry:str # what the list of floors names
    place:tuple[int, int, int] # floor, entry, number in the folder

    @property
    def name(self) -> str: # 'data/card'
        'Folder and name without the number'
        return f'{self.entry}/{unnumbered(self.path.stem)}' if self.path.parent.name==self.entry else self.entry

    @property
    def module(self) -> str: return self.name.replace('/', '.')
    @cached_property
    def where(self) -> str: return short(self.path)
    @cached_property
    def notebook(self) -> dict: return json.loads(self.path.read_text(encoding='utf-8'))

    @cached_property
    def cells(self) -> list[Cell]:
        return [Cell(f'{self.where} cell {i}', c['cell_type'], ''.join(c['source']), tuple(c.get('outputs', ())))
                for i,c in enumerate(self.notebook['cells'])]

    @property
    def exports_to(self) -> str|None:
        return next((c.directives['default_exp'] for c in self.cells if 'default_exp' in c.directives), None)

def short(path:Path) -> str: return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
def unnumbered(stem:str) -> str: return re.sub(r'^\d+[a-z]*_', '', stem)
def number(path:Path) -> int: return int((re.match(r'\d+', path.stem) or [0])[0])

def page(path:Path, folder:Path=nbs, order:list=None) -> Page:
    'A notebook as a page, by the list of floors'
    parts = path.relative_to(folder).parts
    entry = parts[0] if len(parts)>1 else unnumbered(path.stem)
    for i,(title,names) in enumerate(order or floors()):
        if entry in names: return Page(path, title, entry, (i, names.index(entry), number(path)))
    raise ValueError(f'{short(path)} stands on no floor: enter {entry} under `floors` in settings.ini')

def pages(folder:Path=nbs, order:list=None) -> list[Page]:
    'All notebooks in reading order'
    found = (p for p in folder.rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(folder).parts))
    return sorted((page(p, folder, order) for p in found), key=lambda p: (p.place, p.name))

def opening(page:Page) -> tuple[str, str]:
    'Title and one-line summary of a notebook'
    title, _, rest = page.cells[0].source.partition('\n')
    return title.removeprefix('# '), rest.strip().removeprefix('> ').partition('\n')[0]

def table_rows(pages:Iterable[Page], link:Callable[[Page], str]) -> list[str]:
    'Pages as rows of a table: title and summary'
    return [f'| [{title}]({link(p)}) | {said} |' for p in pages for title,said in [opening(p)]]

# ---- what a page's stored outputs came from --------------------------------------------------------------------------

def flag(cell:Cell) -> str|None:
    "Which option of tools/run_nbs.py runs a code cell: 'always', a test flag such as 'slow', or None: nothing does"
    if cell.kind!='code' or cell.machinery or cell.directives.get('eval')=='false': return None
    return next((f for f in cfg['tst_flags'].split() if f in cell.directives), 'always')

def inputs(cells:list[Cell], models:str) -> dict[str, dict]: # flag -> digest of its cells, and the models
    'What the outputs of a page depend on: the code of its cells, without directives, and the bundled models'
    groups = {}
    for c in cells:
        if flag(c): groups.setdefault(flag(c), []).append(c.code.strip())
    digest = {f: hashlib.blake2b('\0'.join(o).encode(), digest_size=6).hexdigest() for f,o in groups.items()}
    return {f: dict(code=d, models=models) for f,d in digest.items()}

def models() -> str:
    'Fingerprint of the bundled checkpoints'
    from emofeedback.system import fingerprint
    return fingerprint([lib/'checkpoints'])

def stale(page:Page, models:str) -> list[str]:
    'Stored outputs whose inputs are not those of today'
    ran, found = page.notebook['metadata'].get(pkg, {}).get('ran_on', {}), []
    for f,now in inputs(page.cells, models).items():
        other = [k for k in now if ran.get(f, {}).get(k)!=now[k]]
        how = 'make run ARGS="{}{}"'.format(page.where, '' if f=='always' else f' --flags {f}')
        if other: found.append(f'{page.where}: {" and ".join(other)} of its {f} cells changed since it ran: {how}')
    return found

# ---- rooms: what each module imports ---------------------------------------------------------------------------------

@dataclass(frozen=True)
class Room:
    'A module and the page that builds it'
    page:Page
    module:str # without the package's name
    top:frozenset # full names imported when it is imported
    later:frozenset # full names imported inside its functions
    lines:int

def imported(nodes, module:str) -> Iterator[str]:
    'Full names that the import statements among some syntax nodes of a module bring in'
    for n in nodes:
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        if not isinstance(n, ast.ImportFrom): continue
        home = f'{pkg}.{module}'.split('.')[:-n.level] if n.level else [] # nbdev writes our imports in relative form
        base = '.'.join([*home, n.module] if n.module else home)
        yield from (base, *(f'{base}.{a.name}' for a in n.names))

def room(page:Page, code:str) -> Room:
    'A module of the given code'
    nodes = set(ast.walk(ast.parse(code)))
    inner = {n for f in nodes if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    top, later = (frozenset(imported(o, page.module)) for o in (nodes-inner, inner))
    return Room(page, page.module, top, later, len(code.splitlines()))

def rooms(pages:list[Page]) -> dict[str, Room]:
    'The modules of some pages by name, bottom to top'
    code = {p: lib/(p.module.replace('.', '/')+'.py') for p in pages if not stands_alone(p.entry)}
    return {p.module: room(p, f.read_text(encoding='utf-8')) for p,f in code.items() if f.is_file()}

def edges(rooms:dict[str, Room]) -> list[tuple[str, str, str]]: # importing, imported, 'top' or 'later'
    'Which room imports from which; a front-door name counts for the room where it lives'
    import emofeedback
    doors = {f'{pkg}.{name}': f'{pkg}.{home}' for name,home in emofeedback._home.items()}
    def ours(names): return {doors.get(n, n).removeprefix(f'{pkg}.') for n in names} & set(rooms)
    found = [(a, when, ours(getattr(r, when))-{a}) for a,r in rooms.items() for when in ('top', 'later')]
    return [(a, b, when) for a,when,names in found for b in sorted(names)]

def read_libraries() -> None:
    'Import what the modules import from elsewhere, for forks to share; none of our own'
    import emofeedback # noqa: F401 (says how OpenMP waits, before torch is read)
    names = {n for r in rooms(pages()).values() for n in r.top|r.later if n.split('.')[0]!=pkg}
    logging.disable(logging.WARNING)
    for name in sorted(names):
        with suppress(ImportError, AttributeError): resolve_name(name) # a class too, whose module is read with it
    logging.disable(logging.NOTSET)
