'A documented symbol as Markdown: its call, its parameters as a table from docments, and the index of all of them'
import inspect
import re
from importlib import import_module

from fastcore.docments import docments
from nbdev.config import get_config

import plan
from doc_commands import commands, described

cfg = get_config()
empty = inspect.Parameter.empty

def target(page:str, name:str) -> str: return f'{page}-{name}'.lower().replace('/', '-')
def code(text:str) -> str: return f'`{text}`'.replace('|', r'\|') if text else ''
def first_line(symbol) -> str:
    line = (inspect.getdoc(symbol) or '').partition('\n')[0]
    return re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', line) # a link in it leads from its notebook only
def is_protocol(symbol) -> bool: return bool(getattr(symbol, '_is_protocol', False))

def in_cell(text:str) -> str:
    'A comment fit for a cell of a table: a bar, a star or a bracket in it is no Markdown'
    parts = re.split(r'(`[^`]*`)', ' '.join(text.split()))
    return ''.join(o if o[:1]=='`' else re.sub(r'([*_\[\]<$])', r'\\\1', o) for o in parts).replace('|', r'\|')

def typed(annotation) -> str:
    'A type as it is written'
    if annotation in (empty, None, type(None)): return ''
    return annotation.__name__ if isinstance(annotation, type) and '[' not in str(annotation) else (
        re.sub(r'\b(?:[a-z_]\w*\.)+', '', str(annotation).strip("'")))

def preset(default) -> str:
    'A default value as it is written'
    if default is empty: return ''
    return getattr(default, '__qualname__', None) or re.sub(r'<(.*?)( object)? at 0x\w+>', r'\1', repr(default))

def call(symbol, name:str) -> str:
    'How to call it: names, and the defaults of those that may be left out; a protocol shows what it asks for'
    if is_protocol(symbol): return inspect.getsource(symbol).rstrip()
    try: parameters = inspect.signature(symbol).parameters.values()
    except (ValueError, TypeError): return name
    bare = [p.replace(annotation=empty) for p in parameters if p.name not in ('self', 'cls')]
    shown = [str(p) if p.default is empty else f'{p.name}={preset(p.default)}' for p in bare]
    line = f'{name}({", ".join(shown)})'
    return line if len(line)<90 else f'{name}(\n    '+',\n    '.join(shown)+')'

def parameters(symbol) -> str:
    'Its parameters and its result as a table: name, type, default, and the comment beside it'
    if is_protocol(symbol): return ''
    told = {k: v for k,v in docments(symbol, full=True).items() if k not in ('self', 'cls')}
    back = told.pop('return', None)
    rows = [(code(k), typed(v.anno), preset(v.default), v.docment or '') for k,v in told.items()]
    if back and (back.docment or back.anno is not empty) and not isinstance(symbol, type):
        rows.append(('returns', typed(back.anno), '', back.docment or ''))
    rows = [f'| {n} | {code(t)} | {code(d)} | {in_cell(str(c))} |' for n,t,d,c in rows]
    return '\n'.join(['| parameter | type | default | meaning |', '|---|---|---|---|', *rows]) if rows else ''

def documented(symbol, name:str) -> str:
    'What a page shows of a function or a class'
    docs = inspect.getdoc(symbol) or ''
    if docs.startswith(f'{name.rpartition(".")[2]}('): docs = '' # what `dataclass` writes
    head, _, rest = docs.partition('\n')
    text = f'*{head}*\n{rest}'.strip() if head else ''
    parts = f'### {name}', f'```python\n{call(symbol, name)}\n```', text, parameters(symbol)
    return '\n\n'.join(o for o in parts if o)

def line(symbol) -> int|None: # None: not written in a module
    'Where its source begins'
    symbol = getattr(symbol, 'fget', getattr(symbol, 'func', symbol)) # of a property
    try: return inspect.getsourcelines(inspect.unwrap(symbol))[1]
    except (TypeError, OSError): return None

def index(pages:list[plan.Page], anchors:set[str]) -> str:
    'All exported symbols, one line each; a symbol without a section of its own leads to its page'
    rows = []
    for p in pages:
        module = import_module(f'{cfg.lib_name}.{p.exports_to}') if p.exports_to else None
        for name in getattr(module, '__all__', ()):
            symbol, at = getattr(module, name), target(p.name, name)
            link = f'#{at}' if at in anchors else f'/{p.name}.ipynb'
            said = first_line(symbol) if callable(symbol) else f'`{type(symbol).__name__}`'
            if said.startswith(f'{name}('): said = ''
            rows.append((name, f'| [`{name}`]({link}) | [{p.module}](/{p.name}.ipynb) | {in_cell(said)} |'))
    head = f'# Symbols\n\n> All {len(rows)} names that the package exports\n'
    ordered = [o for _,o in sorted(rows, key=lambda o: (o[0].lower(), o[0]))]
    return '\n'.join([head, '| name | module | what it is |', '|---|---|---|', *ordered, ''])

def command_page() -> str:
    'All commands on one page'
    parts = [re.sub('^### .*', f'## {cfg.lib_name} {name}'.rstrip(), described(f)) for f,name in commands().items()]
    head = f'# Commands\n\n> Everything that `{cfg.lib_name}` does in a shell, written from the commands themselves'
    return '\n\n'.join([head, *parts, ''])
