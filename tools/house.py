'The laws of the house, each written once: read by the tests and the house page; run it to list what breaks them'
import ast
import io
import json
import re
import statistics
import subprocess
import sys
import tokenize

import plan
from plan import Cell, Page, Room, edges, lib, number, pkg, root, short, stands_alone

WIDTH, MODULE, FUNCTION, LOOP, CELL, MEDIAN = 120, 300, 40, 60, 35, 8 # characters of a line, then lines
NOTEBOOK = 400 # KB with outputs
HEAVY = {'transformers', 'diffusers', 'trl', 'peft', 'accelerate', 'datasets', 'sphinx', 'nbdev'} # seconds to import
HEAVY_TOPS = {} # module -> libraries it may import at its top; give the reason here
MACHINE = re.compile(r'(^|[\s\'"(])/(home|root|tmp|work|Users)/') # start of a path of one machine
# floors that never need the mini world
MINI_FREE = {'understanding', 'generation', 'feedback', 'evaluation', 'people', 'widgets'}

# ---- modules ---------------------------------------------------------------------------------------------------------

def upward(rooms:dict[str, Room]) -> list[str]:
    'Imports from the same floor or a higher one'
    up = [(a, b) for a,b,_ in edges(rooms) if rooms[b].page.place>=rooms[a].page.place]
    return [f'{a} imports {b}, which stands above it' for a,b in up]

def guests(rooms:dict[str, Room]) -> list[str]:
    'Imports of the mini world where full-size models do the same work'
    return [f'{a} imports {b}, but works for any model' for a,b,_ in edges(rooms)
            if a.split('.')[0] in MINI_FREE and b.startswith('mini.')]

def heavy_tops(rooms:dict[str, Room]) -> list[str]:
    'Libraries that take seconds, imported with the module'
    found = {m: {n.split('.')[0] for n in r.top} & HEAVY-HEAVY_TOPS.get(m, set()) for m,r in rooms.items()}
    heavy = [(m, n) for m in found for n in sorted(found[m])]
    return [f'{m} imports {n} at its top: import it in the functions that need it' for m,n in heavy]

def homeless(pages:list[Page], modules:set[str]) -> list[str]:
    'Pages without their module, modules without a page, a number used twice, root pages out of order'
    ours = [p for p in pages if not stands_alone(p.entry)]
    found = [f'{p.where} exports to {p.exports_to}: #| default_exp {p.module}' for p in ours if p.exports_to!=p.module]
    found += [f'{p.where} has no module: run nbdev_export' for p in ours if p.module not in modules]
    found += [f'{p.where} exports to {p.exports_to}, on a floor without modules' for p in pages
              if stands_alone(p.entry) and p.exports_to]
    found += [f'{pkg}.{m} has no page: delete it, or write one' for m in sorted(modules-{p.module for p in ours})]
    for p,q in zip(pages, pages[1:]):
        if p.place==q.place: found.append(f'{p.where} and {q.where} have one place: change a number')
    outside = [p for p in pages if p.name==p.entry and p.path.stem!=p.entry]
    found += [f'{q.where} has a smaller number than {p.where}, and a higher place'
              for p,q in zip(outside, outside[1:]) if number(p.path)>=number(q.path)]
    return found

# ---- code: cells of notebooks, tests, tools --------------------------------------------------------------------------

def files() -> list[Cell]:
    'Code that no notebook writes, each file as one cell'
    found = [*root.glob('*.py'), *root.glob('docs/*.py'), *root.glob('tools/*.py'), *root.glob('tests/**/*.py')]
    return [Cell(short(p), 'code', p.read_text(encoding='utf-8')) for p in [*found, *lib.glob('__*.py')]]

def wide(cell:Cell) -> list[str]:
    'Lines of a cell that are too long; a directive is prose'
    long = [(i, len(o)) for i,o in enumerate(cell.code.splitlines(), 1) if len(o)>WIDTH]
    return [f'{cell.where} line {i}: {n} characters, at most {WIDTH}' for i,n in long]

def joined(cell:Cell) -> list[str]:
    'Statements joined by a semicolon; one that ends a cell only silences its value'
    if cell.machinery: return []
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(cell.code).readline) if t.string.strip()]
    code = [t for t in tokens if t.type!=tokenize.COMMENT][:-1]
    return [f'{cell.where} line {t.start[0]}: a semicolon' for t in code if t.type==tokenize.OP and t.string==';']

def truth(n) -> bool:
    'Is this syntax node a comparison, or what `and`, `or` and `not` give?'
    return isinstance(n, (ast.Compare, ast.BoolOp)) or isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.Not)

def text(n) -> bool:
    'Is this syntax node a text, bytes or a list?'
    return isinstance(n, (ast.JoinedStr, ast.List)) or isinstance(n, ast.Constant) and isinstance(n.value, (str, bytes))

def pack(n) -> str|None:
    'What is wrong with the condition in a syntax node'
    if isinstance(n, ast.IfExp) and any(isinstance(o, ast.IfExp) for o in (n.test, n.body, n.orelse)):
        return 'a conditional expression inside another'
    if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult):
        if any(text(a) and truth(b) for a,b in ((n.left, n.right), (n.right, n.left))): return 'a text times a truth'
    if isinstance(n, ast.Expr) and isinstance(n.value, ast.BoolOp) and isinstance(n.value.values[-1], ast.Call):
        return '`and` or `or` in place of `if`'

def packed(cell:Cell) -> list[str]:
    'Conditionals inside conditionals, a text times a truth, and `a and f(a)` as a statement'
    found = {(n.lineno, pack(n)) for n in ast.walk(ast.parse(cell.code)) if pack(n)}
    return [f'{cell.where} line {i}: {what}' for i,what in sorted(found)]

def unasserted(cell:Cell) -> list[str]:
    'Errors that are shown and not asserted: the lesson would pass if none came'
    def fails(nodes): return any(isinstance(n, (ast.Raise, ast.Assert)) for s in nodes for n in ast.walk(s))
    def shows(h): return all(isinstance(s, (ast.Expr, ast.Pass, ast.Assert)) for s in h.body)
    tries = [t for t in nodes(cell.code, ast.Try) if any(shows(h) for h in t.handlers)]
    bad = [t for t in tries if not fails(t.orelse) and not fails(t.body[-1:])]
    return [f'{cell.where} line {t.lineno}: passes without an error: use expect_fail' for t in bad]

def nodes(code:str, *kinds) -> list: return [n for n in ast.walk(ast.parse(code)) if isinstance(n, kinds)]
def functions(code:str) -> list[ast.FunctionDef]: return nodes(code, ast.FunctionDef)
def trains(f:ast.FunctionDef) -> bool: return f.name.startswith(('train', 'fit', 'sft', 'grpo')) # may be long

def code_lines(code:str) -> int:
    'Lines of code; a signature counts as one, however many parameters it documents'
    signatures = sum(max(0, f.body[0].lineno-f.lineno-1) for f in functions(code))
    return sum(bool(o.strip()) for o in code.splitlines())-signatures

def large(name:str, code:str) -> list[str]:
    'A module, or functions in it, too long to be one idea'
    n = len(code.splitlines())
    found = [f'{name}: {n} lines, at most {MODULE}: take the second idea out'] if n>MODULE else []
    for f in functions(code):
        size, most = f.end_lineno-f.lineno+1, LOOP if trains(f) else FUNCTION
        if size>most: found.append(f'{name}: {f.name} has {size} lines, at most {most}')
    return found

def runs(codes:dict[str, str]) -> list[str]:
    'More than one class called Run'
    found = [m for m,code in codes.items() if any(n.name=='Run' for n in nodes(code, ast.ClassDef))]
    return [f'class Run is written in {" and in ".join(found)}: one is enough'] if len(found)>1 else []

# ---- pages -----------------------------------------------------------------------------------------------------------

def links(text:str) -> list[str]:
    'Relative targets of the links and pictures in Markdown'
    text = re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S)
    return [o for o in re.findall(r'\]\(\s*([^)\s#]+)', text) if not re.match(r'\w+:', o)]

def dead_links(page:Page) -> list[str]:
    'Relative links to nothing, in prose and in stored outputs'
    texts = [(c.where, c.source) for c in page.cells if c.kind=='markdown']
    texts += [(c.where, ''.join(o.get('data', {}).get('text/markdown', ''))) for c in page.cells for o in c.outputs]
    targets = [(where, o) for where,text in texts for o in links(text)]
    return [f'{where}: {o} is not there' for where,o in targets if not (page.path.parent/o).exists()]

def hidden_imports(page:Page) -> list[str]:
    'Names that a reader sees used and does not see imported'
    def names(cells):
        imports = [n for c in cells for n in nodes(c.code, ast.Import, ast.ImportFrom)]
        return {(a.asname or a.name).split('.')[0] for n in imports for a in n.names}
    code = [c for c in page.cells if c.kind=='code' and not c.machinery]
    dark = names(c for c in code if c.hidden)-names(c for c in code if not c.hidden)
    lessons = [c for c in code if not (c.hidden or c.exported or c.directives.get('echo')=='false')]
    used = {n.id for c in lessons for n in nodes(c.code, ast.Name)}
    return [f'{page.where}: {n} is used, and imported in a hidden cell' for n in sorted(dark & used)]

def form(page:Page) -> list[str]:
    'A page that does not have the form of one'
    first, heads, found = page.cells[0], {c.source.strip() for c in page.cells}, []
    if not re.match(r'# .+\n\n> .+', first.source): found.append('starts without a title and a one-line summary')
    if not stands_alone(page.entry):
        found += [f'has no {h}' for h in ('## Extending it', '## Gotchas', '## Sources') if h not in heads]
    size = page.path.stat().st_size//1024
    if size>NOTEBOOK: found.append(f'{size} KB, at most {NOTEBOOK}: store smaller pictures')
    for c in page.cells:
        if any(o['output_type']=='error' for o in c.outputs): found.append(f'a stored error in {c.where}')
        text = c.source+json.dumps([o.get('text', o.get('data', {}).get('text/plain')) for o in c.outputs])
        if MACHINE.search(text): found.append(f'a path of one machine in {c.where}')
    return [f'{page.where}: {o}' for o in found]

def streaks(page:Page) -> list[str]:
    'More than three exports with nothing shown between them, and exported cells that are long'
    found, row = [], 0
    for c in page.cells:
        if c.exported and code_lines(c.code)>(LOOP if any(trains(f) for f in functions(c.code)) else CELL):
            found.append(f'{c.where}: {code_lines(c.code)} lines exported, at most {CELL}')
        if c.exported: row += any(not isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(c.code).body)
        elif c.kind=='code' and not c.hidden or '![' in c.source: row = 0
        if c.exported and row==4: found.append(f'{c.where}: the fourth export in a row: show something between')
    return found

# ---- all of them -----------------------------------------------------------------------------------------------------

def lint() -> list[str]:
    'What ruff finds by the rules in pyproject.toml'
    where = [o for o in (pkg, 'tests', 'tools', 'docs', 'nbs', 'setup.py') if (root/o).exists()]
    command = [sys.executable, '-m', 'ruff', 'check', '--no-cache', '-q', '--output-format', 'concise', *where]
    r = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return [o for o in (r.stdout+r.stderr).splitlines() if o.strip()]

def written() -> dict[str, str]: # name without the package's -> code
    'The modules of the package'
    files = [p for p in lib.rglob('*.py') if not p.name.startswith('_')]
    return {'.'.join(p.relative_to(lib).with_suffix('').parts): p.read_text(encoding='utf-8') for p in files}

def broken() -> dict[str, list[str]]: # law -> violations
    'Every law of the house, and what breaks it today'
    pages, modules, models = plan.pages(), written(), plan.models()
    rooms, cells = plan.rooms(pages), [c for p in pages for c in p.cells if c.kind=='code']
    median = statistics.median(f.end_lineno-f.lineno+1 for code in modules.values() for f in functions(code))
    def each(law, things): return [o for t in things for o in law(t)]
    return {
        'no import goes up': upward(rooms),
        'every page has its module, every module its page': homeless(pages, set(modules)),
        'the mini world is a guest': guests(rooms),
        'heavy libraries wait inside functions': heavy_tops(rooms),
        f'lines of code stay within {WIDTH} characters': each(wide, cells),
        'one statement per line': each(joined, cells),
        'conditions are written out': each(packed, cells+files()),
        'an error that is shown is asserted': each(unasserted, [c for c in cells if not c.exported]),
        'imports of lessons are visible': each(hidden_imports, pages),
        'every relative link leads somewhere': each(dead_links, pages),
        'stored outputs come from the code and models of today': each(lambda p: plan.stale(p, models), pages),
        'a page has the form of one': each(form, pages),
        'every few exports something is shown': each(streaks, pages),
        'one page is one idea': [o for m,code in modules.items() for o in large(m, code)],
        f'half of the functions have at most {MEDIAN} lines': [f'the median is {median}'] if median>MEDIAN else [],
        'one class is called Run': runs(modules),
        'ruff finds nothing': lint(),
    }

if __name__=='__main__':
    found = broken()
    for law,bad in found.items(): print(f'{len(bad):4} {law}', *(f'       {o}' for o in bad), sep='\n')
    sys.exit(any(found.values()))
