'What a built site must not have: dead links, missing or nameless pictures, raw Markdown, anything from the network'
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RAW = { # what a reader should never see outside of code -> how to tell
    'raw link': r'\]\((?!\s)[^)\s]+\)', 'escaped bar': r'\\\|', 'raw bold': r'(?<![*\w])\*\*\w[^*\n]*\*\*',
    'raw fence': r'```', 'raw directive': r':::|\{(?:numref|ref|figure|toctree)\}', 'raw heading': r'(?m)^#{2,5} \w'}
QUIET = 'code pre script style math svg title textarea'.split() # what stands in these is not prose
LOADED = dict(script='src', img='src', iframe='src', source='src', video='src', audio='src')
LOADED_BY_STYLE = re.compile(r'(?:url\(|@import )\s*["\']?((?:https?:)?//[^"\')\s]+)')
VOID = 'area base br col embed hr img input link meta source track wbr'.split()

class Page(HTMLParser):
    'What a page links to, what it loads, which anchors it has, and its prose'
    def __init__(self, text:str):
        super().__init__()
        self.ids, self.links, self.loads, self.nameless, self.prose, self.inside = set(), [], [], [], [], []
        self.feed(re.sub('</?span(?: class="[^"]*")?>', '', text)) # the colours of code: most of the tags of a site

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag not in VOID: self.inside.append(tag)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag=='a' and a.get('href'): self.links.append(a['href'])
        if tag=='link' and a.get('href') and 'canonical' not in a.get('rel', ''): self.loads.append(a['href'])
        if a.get(LOADED.get(tag)): self.loads.append(a[LOADED[tag]])
        if tag=='img' and 'alt' not in a: self.nameless.append(a.get('src', '')[:60])

    def handle_endtag(self, tag):
        while self.inside and tag in self.inside and self.inside.pop()!=tag: pass

    def handle_data(self, data):
        if not set(QUIET) & set(self.inside): self.prose.append(data)

def remote(url:str) -> bool: return urlsplit(url).scheme in ('http', 'https') or url.startswith('//')

def faults(folder:Path) -> list[str]:
    'What is wrong with a built site, one line each'
    pages = {f.resolve(): Page(f.read_text(encoding='utf-8')) for f in sorted(folder.rglob('*.html'))}
    found = []
    for file,page in pages.items():
        def bad(what, file=file): found.append(f'{file.relative_to(folder.resolve()).as_posix()}: {what}')
        for url in page.loads:
            if remote(url): bad(f'loads from the network: {url}')
        for url in dict.fromkeys(page.links+page.loads):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc: continue
            to = (file.parent/unquote(parts.path)).resolve() if parts.path else file
            if not to.exists(): bad(f'leads nowhere: {url}')
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                bad(f'no such place there: {url}')
        for src in page.nameless: bad(f'a picture without alt text: {src}')
        prose = ''.join(page.prose)
        for what,pattern in RAW.items():
            m = re.search(pattern, prose)
            if m: bad(f'{what}: {prose[max(m.start()-30, 0):m.end()+30].strip()!r}')
    for file in folder.rglob('*.css'):
        for url in LOADED_BY_STYLE.findall(file.read_text(encoding='utf-8')):
            found.append(f'{file.name}: loads from the network: {url}')
    return found

if __name__=='__main__':
    bad = faults(Path(sys.argv[1]))
    sys.exit('\n'.join(bad) or None)
