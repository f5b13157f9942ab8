"Build the docs site and README.md from the notebooks, without Quarto"
import argparse, base64, html, json, os, re, shutil, subprocess, sys
from importlib import import_module
from pathlib import Path
import yaml
from execnb.nbio import read_nb
from execnb.shell import CaptureShell
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _build_modidx
from nbdev.processors import FilterDefaults, add_links, exec_show_docs
from run_nbs import notebooks

cfg = get_config()
root, host = cfg.config_path, cfg.doc_host.rstrip('/')+cfg.doc_baseurl.rstrip('/')
PARTS = dict(zip('0123456789', ['Ground', 'Data', 'Mini world', 'Understanding', 'Generation', 'Feedback', 'Evaluation', 'Door', 'Stories', 'House']))

def unnumbered(name): return re.sub(r'^\d+[a-z]*_', '', Path(name).stem)
def page(fn): return (fn.relative_to(cfg.nbs_path).parent/unnumbered(fn)).as_posix()
def target(pg, name): return f'{pg}-{name}'.lower().replace('/', '-')
def md(s): return dict(cell_type='markdown', metadata={}, source=s)
def exports_to(nb): return next((m[1] for c in nb.cells if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', ''.join(c.source), flags=re.M))), None)

def link_outputs(cell):
    "nbdev's `add_links`, but it leaves code fences in outputs alone"
    look = NbdevLookup()
    if cell.cell_type=='markdown': cell.source = look.linkify(cell.source)
    for o in cell.get('outputs', []):
        if 'text/markdown' in getattr(o, 'data', {}): o.data['text/markdown'] = look.linkify(''.join(o.data['text/markdown']))

class ShowDocs(exec_show_docs):
    "nbdev's `exec_show_docs`, but the symbols come from the finished module: no cell of the notebook is run again"
    def begin(self):
        self.k = CaptureShell()
        self.k.run_cell('from nbdev.showdoc import show_doc')
        if (m := exports_to(self.nb)): self.k.user_ns.update({k: v for k,v in vars(import_module(f'{cfg.lib_name}.{m}')).items() if k[:2]!='__'})
    def __call__(self, cell):
        if re.search('^show_doc', cell.source, flags=re.M) and cell.cell_type=='code': self.k.cell(cell)
        if self.k.exc: sys.exit(f'cannot document {exports_to(self.nb)}: {cell.source}\n{self.k.exc}')
    def end(self): pass

class Filter(FilterDefaults):
    def base_procs(self): return [{add_links: link_outputs, exec_show_docs: ShowDocs}.get(o, o) for o in super().base_procs()]

def links(s):
    "Links to symbols and to numbered notebooks become links inside the site"
    s = re.sub(re.escape(host)+r'/([\w/]+)\.html#([\w.\-]+)', lambda m: '#'+target(m[1], m[2]), s)
    s = re.sub(re.escape(host)+r'/([\w/]+)\.html', r'/\1.ipynb', s)
    s = re.sub(r'\]\((?!\w+:)([\w./]*?)(\w+)\.ipynb', lambda m: f']({m[1]}{unnumbered(m[2])}.ipynb', s)
    s = re.sub(r':::\s*\{\.callout-(\w+)[^}]*\}', r':::{\1}', s)
    return re.sub(r'@(fig-[\w-]+)', r'{numref}`\1`', s)

def showdoc(s, pg, module, told):
    "A documented symbol: a heading that can be linked to, its signature (unless the code `told` shows it), and a link to its source"
    src = f'/source/{module}.md' if module else ''
    s = re.sub(r'\[source\]\(.*?\)\{[^}]*\}\n+', '', re.sub(r'^---\n+', '', s))
    if (name := re.search(r'^#+ (\w+)$', s, flags=re.M)) and re.search(rf'^(def|class) {name[1]}\b', told, flags=re.M): s = re.sub(r'```python\n.*?```\n*', '', s, flags=re.S)
    return links(re.sub(r'^(#+ )(\S+)', lambda m: f'({target(pg, m[2])})=\n{m[1]}{m[2]}' + (f'\n\n{{.nb-source}}\n[source]({src})' if src else ''), s, count=1))

def shown(src, outs, d, widgets):
    "A code cell as MyST-NB wants it, by nbdev's directives `d`; two, if it prints and draws"
    tags = [t for k,t in dict(echo='remove-input', output='remove-output').items() if d.get(k)=='false']
    meta = dict(tags=tags + (['hide-input'] if d.get('code-fold')=='true' else []))
    pics = [o for o in outs if 'image/png' in o.get('data', {})]
    if 'fig-cap' in d and pics and pics!=outs:  # the caption belongs to the picture, not to what else the cell says
        return shown(src, [o for o in outs if o not in pics], {k: v for k,v in d.items() if k!='fig-cap'}, widgets) + shown('', pics, {**d, 'echo': 'false'}, widgets)
    if 'fig-cap' in d:
        meta['mystnb'] = dict(figure=dict(caption=d['fig-cap'], **(dict(name=d['label']) if 'label' in d else {})), image=dict(alt=d.get('fig-alt', d['fig-cap'])))
    for o in outs: still(o, widgets)
    return [dict(cell_type='code', metadata=meta, source=src, outputs=outs, execution_count=None)]

def cells(fn):
    "The cells of notebook `fn` after nbdev's own processors, rewritten so that plain Markdown tools understand them"
    nb,pg,doc,told = read_nb(fn),page(fn),None,''
    widgets = nb.metadata.get('widgets', {}).get('application/vnd.jupyter.widget-state+json', {}).get('state', {})
    module = exports_to(nb)
    Filter()(nb)
    for c in nb.cells:
        src = ''.join(c.source)
        if c.cell_type=='raw':
            fm = yaml.safe_load(src.strip().strip('-')) or {}
            yield md(f"# {fm.get('title', pg)}" + (f"\n\n> {fm['description']}" if fm.get('description') else ''))
            if fn.name!=cfg.readme_nb: yield md(f'{{.nb-page}}\n`nbs/{fn.relative_to(cfg.nbs_path).as_posix()}`' + (f' · [`{cfg.lib_name}.{module}`](/source/{module}.md)' if module else ''))
        elif c.cell_type=='markdown':
            if not src.startswith('<!-- WARNING'): yield md(links(src))
        else:
            d = dict(re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', src, flags=re.M))
            src,outs = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n'),json.loads(json.dumps(c.get('outputs', [])))
            if d.get('include')=='false' or not (src or outs): continue
            if d.get('output')=='asis':
                for o in outs:
                    if 'text/markdown' in o.get('data', {}): yield (doc := md(showdoc(''.join(o['data']['text/markdown']), pg, module, told)))
                continue
            if d.get('echo')=='false' and outs and all('text/markdown' in o.get('data', {}) for o in outs):
                for o in outs: yield md(links(''.join(o['data']['text/markdown'])))
                continue
            if d.get('code-summary'): # of `exports`: the source follows its documentation
                told += src+'\n'
                if doc: doc['source'] = re.sub(r'```python\n.*?```\n*', '', doc['source'], flags=re.S)
            yield from shown(src, outs, d, widgets)

def still(o, widgets):
    "Replace a live widget in output `o` by a picture of its stored state"
    view = o.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    if not view: return
    def draw(i):
        m = widgets.get(i, {}); s = m.get('state', {}); nm = m.get('model_name', '')
        if 'children' in s: return ''.join(draw(c.replace('IPY_MODEL_', '')) for c in s['children'])
        if nm=='OutputModel': return ''.join(out(x) for x in s.get('outputs', []))
        lbl,v = html.escape(str(s.get('description', ''))),s.get('value')
        if 'Slider' in nm: return (f'<label>{lbl} <input type="range" disabled min="{s.get("min",0)}" max="{s.get("max",100)}" '
                                   f'step="{s.get("step",1)}" value="{v}"> <output>{v}</output></label>')
        return f'<label>{lbl} <output>{html.escape(str(v))}</output></label>' if v is not None else ''
    def out(x):
        d = x.get('data', {})
        if 'image/png' in d: return f'<img src="data:image/png;base64,{d["image/png"].strip()}">'
        if 'text/html' in d: return ''.join(d['text/html'])
        return f'<pre>{html.escape("".join(x.get("text", d.get("text/plain", ""))))}</pre>'
    own = ''.join(o['data'].get('text/html', ''))  # a widget may bring a still picture of itself
    o['data'] = {'text/html': f'<div class="nb-widget">{own or draw(view["model_id"])}<p>Live in Jupyter; shown here as last run.</p></div>',
                 'text/plain': o['data'].get('text/plain', '')}

def readme():
    "The text of README.md, and its pictures, from the readme notebook"
    where,pics,res = {page(f): f.relative_to(root).as_posix() for f in notebooks()},{},[]
    def picture(data):
        pics[name := f'fig{len(pics)}.png'] = base64.b64decode(data)
        return f'![](index_files/{name})'
    def link(m):
        if m[1] not in where: sys.exit(f'{cfg.readme_nb} links to {m[1]}.ipynb, which is not there: run tools/run_nbs.py on it again')
        return f']({where[m[1]]}'
    for c in cells(cfg.nbs_path/cfg.readme_nb):
        s = c['source']
        if c['cell_type']=='markdown':
            s = re.sub(r'\[(`[^`]+`)\]\(#[^)]*\)', r'\1', s)
            res.append(re.sub(r'\]\(/?((?!\w+:)[\w/]+)\.ipynb', link, s))
            continue
        if 'remove-input' not in c['metadata']['tags']: res.append(f'```python\n{s}\n```')
        for o in c['outputs']:
            d = o.get('data', {})
            if 'image/png' in d: res.append(picture(d['image/png']))
            elif 'text/markdown' in d: res.append(''.join(d['text/markdown']))
            else: res.append('    '+''.join(o.get('text', d.get('text/plain', ''))).rstrip().replace('\n','\n    '))
    title,_,desc = res[0].partition('\n')
    note = f'<!-- Written by tools/build_docs.py from {cfg.nbs_path.name}/{cfg.readme_nb}; edit that -->'
    return '\n\n'.join([title, note, desc.strip(), *res[1:]]).rstrip()+'\n', pics

def write_readme(check=False):
    new,pics = readme()
    fn,folder = root/'README.md',root/'index_files'
    old = {p.name: p.read_bytes() for p in folder.glob('*')}
    if check: sys.exit(None if fn.read_text(encoding='utf-8')==new and old==pics else 'README.md is out of date: run tools/build_docs.py --readme_only')
    fn.write_text(new, encoding='utf-8')
    shutil.rmtree(folder, ignore_errors=True)
    for k,v in pics.items():
        folder.mkdir(exist_ok=True)
        (folder/k).write_bytes(v)

def contents(files):
    "The site's table of contents: number order, a caption for each part of the house"
    tocs = {}
    for f in files:
        if f.name!=cfg.readme_nb: tocs.setdefault(PARTS[f.name[0]], []).append('/'+page(f))
    return [md('```{toctree}\n:hidden:\n:caption: '+k+'\n\n'+'\n'.join(v)+'\n```') for k,v in tocs.items()]

def settle_targets(pages):
    "nbdev writes anchors in lower case and counts methods inside a class: keep the first of twins, and link such a method to its class"
    texts,seen = [c for p in pages for c in p if c['cell_type']=='markdown'],set()
    def keep(m): return '' if m[1] in seen else seen.add(m[1]) or m[0]
    for c in texts: c['source'] = re.sub(r'^\((\S+)\)=\n', keep, c['source'], flags=re.M)
    for c in texts: c['source'] = re.sub(r'(?<=\]\(#)([^)\s]+)', lambda m: m[1] if m[1] in seen else m[1].rpartition('.')[0] or m[1], c['source'])

def write_pages(work):
    "Every notebook as a page, every module as a page of source"
    nb = dict(metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=4)
    pages = {f: list(cells(f)) for f in notebooks()}
    settle_targets(pages.values())
    for f,cs in pages.items():
        dst = work/f'{page(f)}.ipynb'
        dst.parent.mkdir(parents=True, exist_ok=True)
        dst.write_text(json.dumps(dict(nb, cells=cs + (contents(pages) if f.name==cfg.readme_nb else []))))
    (work/'source').mkdir()
    for f in cfg.lib_path.rglob('[!_]*.py'):
        name = '.'.join(f.relative_to(cfg.lib_path).with_suffix('').parts)
        inc = f'```{{literalinclude}} {os.path.relpath(f, work/"source")}\n:language: python\n:linenos:\n```'
        (work/f'source/{name}.md').write_text(f'---\norphan: true\n---\n\n# {cfg.lib_name}.{name}\n\n{inc}\n')
    return len(pages)

def build():
    _build_modidx()
    shutil.rmtree(root/'_proc', ignore_errors=True)
    work,built = root/'_proc/src',root/'_proc/html'
    work.mkdir(parents=True)
    n = write_pages(work)
    r = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', str(root/'docs'), str(work), str(built)])
    if r.returncode: sys.exit('the site is not built: mend the warnings above')
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(built, cfg.doc_path)
    print(f'{n} pages: open {os.path.relpath(cfg.doc_path)}/index.html')

if __name__=='__main__':
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument('--readme_only', action='store_true', help='only write README.md')
    a.add_argument('--check', action='store_true', help='change nothing, and fail if README.md is out of date')
    args = a.parse_args()
    write_readme(args.check)
    if not args.readme_only: build()
