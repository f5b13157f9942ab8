'Build the docs site and README.md from the notebooks, without Quarto'
import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.doclinks import _build_modidx

import plan
from doc_cells import cells, cfg, md, proc
from doc_check import faults
from doc_plane import landing, write_sheets
from doc_symbols import command_page, index

root = cfg.config_path
README = 'README.md'
SOUGHT = { # page -> words of a search that should find it, beside those that stand on it; each word counts alone
    'index': 'quickstart getting started install installation',
    'guide/extend': 'custom reward judge plugin',
    'guide/five_minutes': 'quickstart quick start custom reward judge tutorial'}

# ---- README.md -------------------------------------------------------------------------------------------------------

def plain_output(output:dict) -> str:
    'Text of an output, indented as Markdown wants code'
    text = ''.join(output.get('text', output.get('data', {}).get('text/plain', '')))
    return '    '+text.rstrip().replace('\n', '\n    ')

def readme() -> tuple[str, dict[str, bytes]]:
    'The text of README.md, and its pictures, from the readme notebook'
    where, pictures, parts = {p.name: p.where for p in plan.pages()}, {}, []
    def picture(data, said):
        name = f'fig{len(pictures)}.png'
        pictures[name] = base64.b64decode(data)
        alt, caption = said.get('image', {}).get('alt', ''), said.get('figure', {}).get('caption')
        return f'![{alt}](index_files/{name})'+(f'\n\n*{caption}*' if caption else '')
    def link(m):
        if m[1] in where: return f']({where[m[1]]}'
        sys.exit(f'{cfg.readme_nb} links to {m[1]}.ipynb, which is not there: run tools/run_nbs.py on it again')
    for c in cells(plan.page(cfg.nbs_path/cfg.readme_nb)):
        source = c['source']
        if c['cell_type']=='markdown':
            source = re.sub(r'\[(`[^`]+`)\]\(#[^)]*\)', r'\1', source)
            parts.append(re.sub(r'\]\(/?((?!\w+:)[\w/]+)\.ipynb', link, source))
            continue
        if 'remove-input' not in c['metadata']['tags']: parts.append(f'```python\n{source}\n```')
        for o in c['outputs']:
            data = o.get('data', {})
            if 'image/png' in data: parts.append(picture(data['image/png'], c['metadata'].get('mystnb', {})))
            elif 'text/markdown' in data: parts.append(''.join(data['text/markdown']))
            else: parts.append(plain_output(o))
    title, _, summary = parts[0].partition('\n')
    note = f'<!-- Written by tools/build_docs.py from {cfg.nbs_path.name}/{cfg.readme_nb}: edit that -->'
    return '\n\n'.join([title, note, summary.strip(), *parts[1:]]).rstrip()+'\n', pictures

def write_readme(check:bool=False) -> None:
    'Write README.md and its pictures, or only compare'
    text, pictures = readme()
    file, folder = root/README, root/'index_files'
    old = {p.name: p.read_bytes() for p in folder.glob('*')}
    if check:
        same = file.read_text(encoding='utf-8')==text and old==pictures
        sys.exit(None if same else 'README.md is out of date: run tools/build_docs.py --readme_only')
    file.write_text(text, encoding='utf-8')
    shutil.rmtree(folder, ignore_errors=True)
    for name,data in pictures.items():
        folder.mkdir(exist_ok=True)
        (folder/name).write_bytes(data)

# ---- the site --------------------------------------------------------------------------------------------------------

def wings(pages:list[plan.Page]) -> dict[str, list[plan.Page]]:
    'The floors and what stands on each, by the name of their page on the site; the readme stands before them'
    found = {}
    for p in pages:
        if p.path.name!=cfg.readme_nb: found.setdefault('wing/'+re.sub(r'\W+', '_', p.floor.lower()), []).append(p)
    return found

def toctree(names, *options:str) -> str: return '\n'.join(['```{toctree}', *options, '', *names, '```', ''])

def write_wings(work:Path, pages:list[plan.Page]) -> None:
    'A page for each floor: its pages with their summaries'
    (work/'wing').mkdir()
    for name,found in wings(pages).items():
        rows = ['| page | what it builds |', '|---|---|', *plan.table_rows(found, lambda p: f'/{p.name}.ipynb')]
        text = f'# {found[0].floor}', toctree(('/'+p.name for p in found), ':hidden:'), '\n'.join(rows)
        (work/f'{name}.md').write_text('\n\n'.join(text))

def contents(pages:list[plan.Page]) -> dict:
    "The site's table of contents: a wing for each floor in reading order, then what is looked up"
    look = toctree(['/commands', '/symbols'], ':hidden:', ':caption: Look up')
    return md(toctree(('/'+o for o in wings(pages)), ':hidden:', ':caption: Wings')+'\n'+look)

def settle_targets(pages:list[list[dict]]) -> set[str]: # the anchors
    'Of two equal anchors (nbdev writes them in lower case) the first stays; a method without one leads to its class'
    texts, seen = [c for p in pages for c in p if c['cell_type']=='markdown'], set()
    def keep(m):
        if m[1] in seen: return ''
        seen.add(m[1])
        return m[0]
    def known(m): return m[1] if m[1] in seen else m[1].rpartition('.')[0] or m[1]
    for c in texts: c['source'] = re.sub(r'^\((\S+)\)=\n', keep, c['source'], flags=re.M)
    for c in texts: c['source'] = re.sub(r'(?<=\]\(#)([^)\s]+)', known, c['source'])
    return seen

def write_pages(work:Path) -> int: # how many
    'Every notebook as a page'
    kernel = dict(name='python3', display_name='python3', language='python')
    pages = {p: list(cells(p)) for p in plan.pages()}
    anchors = settle_targets(list(pages.values()))
    for p,found in pages.items():
        if p.path.name==cfg.readme_nb: found[:] = [*found[:1], md(landing()), *found[1:], contents(list(pages))]
        file = work/f'{p.name}.ipynb'
        file.parent.mkdir(parents=True, exist_ok=True)
        sought = ', '.join(SOUGHT.get(p.name, p.floor).split())
        meta = dict(kernelspec=kernel, myst=dict(html_meta=dict(keywords=sought)))
        file.write_text(json.dumps(dict(cells=found, metadata=meta, nbformat=4, nbformat_minor=4)))
    write_wings(work, list(pages))
    (work/'symbols.md').write_text(index(list(pages), anchors))
    (work/'commands.md').write_text(command_page())
    return len(pages)

def write_sources(folder:Path) -> None:
    'Every module as a page of source'
    folder.mkdir()
    for f in cfg.lib_path.rglob('[!_]*.py'):
        name = '.'.join(f.relative_to(cfg.lib_path).with_suffix('').parts)
        lines = '---', 'orphan: true', 'nosearch: true', '---', '', f'# {cfg.lib_name}.{name}', ''
        include = f'```{{literalinclude}} {os.path.relpath(f, folder)}', ':language: python', ':linenos:', '```', ''
        (folder/f'{name}.md').write_text('\n'.join([*lines, *include]))

def build() -> None:
    'Write the site'
    _build_modidx()
    shutil.rmtree(root/'_proc', ignore_errors=True)
    work, built = proc, root/'_proc/html'
    work.mkdir(parents=True)
    n = write_pages(work)
    write_sources(work/'source')
    sphinx = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', str(root/'docs')]
    failed = subprocess.run([*sphinx, str(work), str(built)]).returncode
    write_sheets(built/'_static')
    bad = faults(built)
    if failed or bad: sys.exit('\n'.join([*bad, 'the site is not built: mend what stands above']))
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
