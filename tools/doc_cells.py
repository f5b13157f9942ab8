'The cells of a notebook, rewritten so that plain Markdown tools and MyST-NB understand them'
import html
import json
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import FunctionType

import yaml
from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import FilterDefaults, add_links, exec_show_docs

import plan
from doc_commands import described
from doc_symbols import documented, line, target

cfg = get_config()
proc = cfg.config_path/'_proc/src' # the pages, as Sphinx reads them
host = cfg.doc_host.rstrip('/')+cfg.doc_baseurl.rstrip('/')
WIDGETS = 'application/vnd.jupyter.widget-state+json'
VIEW = 'application/vnd.jupyter.widget-view+json'
UNTOLD = 'what the cell above draws' # alt text of a picture without a caption
SIGNATURE = re.compile(r'```python\n.*?```\n*', flags=re.S)

def md(source:str) -> dict: return dict(cell_type='markdown', metadata={}, source=source)

# ---- nbdev's processors, with two of our own -------------------------------------------------------------------------

def link_outputs(cell) -> None:
    "nbdev's `add_links`, but it leaves code fences in outputs alone"
    look = NbdevLookup()
    if cell.cell_type=='markdown': cell.source = look.linkify(cell.source)
    for o in cell.get('outputs', []):
        data = getattr(o, 'data', {})
        if 'text/markdown' in data: data['text/markdown'] = look.linkify(''.join(data['text/markdown']))

class ShowDocs(exec_show_docs):
    'Documents the symbols of the finished module: no cell is run again; commands show options, the rest its parameters'
    def begin(self):
        source = '\n'.join(''.join(c.source) for c in self.nb.cells)
        self.module = next(iter(re.findall(r'^#\|\s*default_exp\s+(\S+)', source, flags=re.M)), None)
        self.names = vars(import_module(f'{cfg.lib_name}.{self.module}')) if self.module else {}

    def __call__(self, cell):
        shown = re.search(r'^show_doc\(\s*([\w.]+)', cell.source, flags=re.M)
        if not shown or cell.cell_type!='code': return
        try: symbol = eval(shown[1], {}, self.names)
        except (NameError, AttributeError) as e: sys.exit(f'cannot document {self.module}: {cell.source}\n{e}')
        text = described(symbol) if isinstance(symbol, FunctionType) else None
        if text is None: text = documented(symbol, shown[1])
        data = {'text/markdown': text, 'text/x-line': str(line(symbol) or '')}
        cell['outputs'] = [dict(output_type='display_data', metadata={}, data=data)]

    def end(self): pass

class Filter(FilterDefaults):
    def base_procs(self):
        ours = {add_links: link_outputs, exec_show_docs: ShowDocs}
        return [ours.get(o, o) for o in super().base_procs()]

# ---- Markdown --------------------------------------------------------------------------------------------------------

def links(text:str, page:str) -> str:
    'Links to symbols, to numbered notebooks and to figures of the page become links inside the site'
    text = re.sub(r'\[\[(`[^`]+`)\]\([^)\s]*\)\](?=\()', r'[\1]', text) # nbdev links the word of a link again
    where = re.escape(host)+r'/([\w/]+)\.html'
    text = re.sub(where+r'#([\w.\-]+)', lambda m: '#'+target(m[1], m[2]), text)
    text = re.sub(where, r'/\1.ipynb', text)
    text = re.sub(r'\]\((?!\w+:)([\w./]*?)(\w+)\.ipynb', lambda m: f']({m[1]}{plan.unnumbered(m[2])}.ipynb', text)
    text = re.sub(r':::\s*\{\.callout-(\w+)[^}]*\}', r':::{\1}', text)
    return re.sub(r'@(fig-[\w-]+)', lambda m: '{numref}`'+target(page, m[1])+'`', text)

def source_link(page:str, module:str, line:str) -> str:
    'A link to the line of the source where a symbol begins'
    up = '../'*page.count('/')
    return f'\n\n{{.nb-source}}\n<a href="{up}source/{module}.html{f"#L-{line}" if line else ""}">source</a>'

def showdoc(text:str, page:str, module:str|None, code:str, line:str='') -> str:
    'A documented symbol: a heading to link to, its signature (unless the code `code` shows it), a link to its source'
    source = source_link(page, module, line) if module else ''
    name = re.search(r'^#+ (\w+)$', text, flags=re.M)
    if name and re.search(rf'^(def|class) {name[1]}\b', code, flags=re.M): text = SIGNATURE.sub('', text)
    def head(m): return f'({target(page, m[2])})=\n{m[1]}{m[2]}{source}'
    return links(re.sub(r'^(#+ )(\S+)', head, text, count=1), page)

# ---- outputs ---------------------------------------------------------------------------------------------------------

def slider(label:str, state:dict) -> str:
    'A slider that does not move'
    low, high, step, value = (state.get(k, d) for k,d in (('min', 0), ('max', 100), ('step', 1), ('value', None)))
    bar = f'<input type="range" disabled min="{low}" max="{high}" step="{step}" value="{value}">'
    return f'<label>{label} {bar} <output>{value}</output></label>'

def still_output(output:dict) -> str:
    'One output inside a widget as HTML'
    data = output.get('data', {})
    if 'image/png' in data: return f'<img src="data:image/png;base64,{data["image/png"].strip()}">'
    if 'text/html' in data: return ''.join(data['text/html'])
    return f'<pre>{html.escape("".join(output.get("text", data.get("text/plain", ""))))}</pre>'

def still_widget(model:str, widgets:dict) -> str:
    'A widget and what it holds as HTML'
    known = widgets.get(model, {})
    state, name = known.get('state', {}), known.get('model_name', '')
    inside = [c.replace('IPY_MODEL_', '') for c in state.get('children', [])]
    if inside: return ''.join(still_widget(c, widgets) for c in inside)
    if name=='OutputModel': return ''.join(still_output(o) for o in state.get('outputs', []))
    label, value = html.escape(str(state.get('description', ''))), state.get('value')
    if 'Slider' in name: return slider(label, state)
    return '' if value is None else f'<label>{label} <output>{html.escape(str(value))}</output></label>'

def still(output:dict, widgets:dict) -> None:
    'Replace a live widget in an output by a picture of its stored state'
    view = output.get('data', {}).pop(VIEW, None)
    if not view: return
    own = ''.join(output['data'].get('text/html', '')) # a widget may bring a still picture of itself
    inside = own or still_widget(view['model_id'], widgets)
    page = f'<div class="nb-widget">{inside}<p>Live in Jupyter; shown here as last run.</p></div>'
    output['data'] = {'text/html': page, 'text/plain': output['data'].get('text/plain', '')}

def shown(source:str, outputs:list, directives:dict, widgets:dict) -> list[dict]:
    "A code cell as MyST-NB wants it, by nbdev's directives; two, if it prints and draws"
    tags = [t for k,t in dict(echo='remove-input', output='remove-output').items() if directives.get(k)=='false']
    if directives.get('code-fold')=='true': tags.append('hide-input')
    pictures, meta = [o for o in outputs if 'image/png' in o.get('data', {})], dict(tags=tags)
    if 'fig-cap' in directives and pictures and pictures!=outputs: # the caption belongs to the picture alone
        words = {k: v for k,v in directives.items() if k!='fig-cap'}
        rest = shown(source, [o for o in outputs if o not in pictures], words, widgets)
        return rest+shown('', pictures, {**directives, 'echo': 'false'}, widgets)
    if 'fig-cap' in directives:
        figure = dict(caption=directives['fig-cap'])
        if 'label' in directives: figure['name'] = directives['label']
        meta['mystnb'] = dict(figure=figure, image=dict(alt=directives.get('fig-alt', directives['fig-cap'])))
    elif pictures: meta['mystnb'] = dict(image=dict(alt=directives.get('fig-alt', UNTOLD)))
    for o in outputs:
        still(o, widgets)
        page = o.get('data', {}).get('text/html')
        if page: o['data']['text/html'] = re.sub(r'<img (?![^>]*\balt=)', f'<img alt="{UNTOLD}" ', ''.join(page))
    return [dict(cell_type='code', metadata=meta, source=source, outputs=outputs, execution_count=None)]

# ---- cells -----------------------------------------------------------------------------------------------------------

def title(page:plan.Page, source:str) -> Iterator[dict]:
    'The head of a page: title and summary, then where its notebook and its module are'
    front = yaml.safe_load(source.strip().strip('-')) or {}
    summary = f'\n\n> {front["description"]}' if front.get('description') else ''
    yield md(f'# {front.get("title", page.name)}{summary}')
    if page.path.name==cfg.readme_nb: return
    module = f' · [`{cfg.lib_name}.{page.exports_to}`](/source/{page.exports_to}.md)' if page.exports_to else ''
    file = f'{{download}}`notebook <{os.path.relpath(page.path, proc/page.name/"..")}>`'
    edit = f'[edit]({cfg.git_url}/edit/{cfg.branch}/{page.where})'
    yield md(f'{{.nb-page}}\n`{page.where}`{module} · {file} · {edit}')

def markdown(outputs:list) -> list[str]:
    'What some outputs hold as Markdown'
    found = [o.get('data', {}).get('text/markdown') for o in outputs]
    return [''.join(o) for o in found if o is not None]

def directives_of(source:str) -> dict[str, str]:
    'The directives of a cell; a value in quotes is YAML, as Quarto reads it'
    found = re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', source, flags=re.M)
    return {k: yaml.safe_load(v) if v[:1]=='"' else v for k,v in found}

def cells(page:plan.Page) -> Iterator[dict]:
    "The cells of a page after nbdev's own processors"
    nb, doc, code = read_nb(page.path), None, ''
    widgets = nb.metadata.get('widgets', {}).get(WIDGETS, {}).get('state', {})
    Filter()(nb)
    for c in nb.cells:
        source = ''.join(c.source)
        if c.cell_type=='raw': yield from title(page, source)
        if c.cell_type=='markdown' and not source.startswith('<!-- WARNING'): yield md(links(source, page.name))
        if c.cell_type!='code': continue
        directives = directives_of(source)
        source = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip('\n')
        outputs = json.loads(json.dumps(c.get('outputs', [])))
        texts = markdown(outputs)
        if 'label' in directives: directives['label'] = target(page.name, directives['label'])
        if directives.get('include')=='false' or not (source or outputs): continue
        if directives.get('output')=='asis':
            at = ''.join(o.get('data', {}).pop('text/x-line', '') for o in outputs)
            for text in filter(None, texts):
                doc = md(showdoc(text, page.name, page.exports_to, code, at))
                yield doc
            continue
        if directives.get('echo')=='false' and outputs and len(texts)==len(outputs):
            yield from (md(links(text, page.name)) for text in texts)
            continue
        if directives.get('code-summary'): # of `exports`: the source follows its documentation
            code += source+'\n'
            if doc: doc['source'] = SIGNATURE.sub('', doc['source'])
        yield from shown(source, outputs, directives, widgets)
