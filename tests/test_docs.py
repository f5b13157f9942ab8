'What fails the build of the site, on a small site with each fault, and what the site makes of a symbol'
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from browser import opened

root = Path(__file__).parent.parent
sys.path.insert(0, str(root/'tools'))

import doc_cells # noqa: E402
import doc_plane # noqa: E402
import plan # noqa: E402
from doc_check import faults # noqa: E402
from doc_commands import described # noqa: E402
from doc_symbols import call, documented, line, parameters # noqa: E402

GOOD = '''<html><head><link rel="stylesheet" href="a.css"><script src="a.js"></script></head>
<body><h2 id="here">A *b* | c</h2>
<a href="#here">1</a> <a href="b.html#there">2</a> <a href="https://example.com/gone">3</a> <img src="p.png" alt="">
<code>[f](g.md) \\| **x**</code> <p>2 ** 3 ** 4, rows [0](1 of them)</p></body></html>'''

def site(folder:Path, body:str='', css:str='') -> list[str]:
    'Faults of a small site with something put in'
    (folder/'sub').mkdir()
    (folder/'index.html').write_text(GOOD.replace('</body>', body+'</body>'))
    (folder/'b.html').write_text('<p id="there">b</p>')
    (folder/'sub/c.html').write_text('<a href="../b.html#there">up</a>')
    for name in ('a.js', 'p.png'): (folder/name).touch()
    (folder/'a.css').write_text('@font-face { src: url(data:x) } '+css)
    return faults(folder)

def test_a_whole_site_has_no_fault(tmp_path): assert site(tmp_path)==[]

@pytest.mark.parametrize('body,said', [
    ('<a href="gone.html">x</a>', 'leads nowhere: gone.html'),
    ('<a href="b.html#gone">x</a>', 'no such place there: b.html#gone'),
    ('<a href="#gone">x</a>', 'no such place there: #gone'),
    ('<img src="gone.png" alt="x">', 'leads nowhere: gone.png'),
    ('<img src="p.png">', 'a picture without alt text: p.png'),
    ('<script src="https://cdn.x/y.js"></script>', 'loads from the network: https://cdn.x/y.js'),
    ('<link rel="preconnect" href="//fonts.x">', 'loads from the network: //fonts.x'),
    ('<p>see [a page](a.md)</p>', 'raw link'), ('<td>a \\| b</td>', 'escaped bar'), ('<p>a **b** c</p>', 'raw bold'),
    ('<p>```sh</p>', 'raw fence'), ('<p>:::{note}</p>', 'raw directive'), ('<p>\n## Title</p>', 'raw heading')])
def test_a_fault_is_told(tmp_path, body, said):
    found = site(tmp_path, body)
    assert len(found)==1 and found[0].startswith('index.html: '+said), found

def test_a_style_loads_nothing(tmp_path):
    found = site(tmp_path, css='p { background: url("https://x.y/z.png") }')
    assert found==['a.css: loads from the network: https://x.y/z.png']

def weigh(
    x:int|None, # (B,) a|b, in [0, 1]
    how:str='mean', # mean or sum
) -> float: # the *weight*
    'How much'

@dataclass
class Point:
    'A point'
    v:float # to the right
    a:float=0. # upwards

    @property
    def far(self) -> float: return abs(self.v) # how far

class Reader(Protocol):
    'Reads'
    def read(self, n:int) -> str: ... # n characters

def test_parameters_become_a_table():
    assert call(weigh, 'weigh')=="weigh(x, how='mean')"
    assert parameters(weigh).splitlines()[2:]==[
        r'| `x` | `int \| None` |  | (B,) a\|b, in \[0, 1\] |', "| `how` | `str` | `'mean'` | mean or sum |",
        r'| returns | `float` |  | the \*weight\* |']
    assert '| `a` | `float` | `0.0` | upwards |' in parameters(Point)
    assert documented(weigh, 'weigh').startswith('### weigh\n\n```python\nweigh(')

def test_a_property_is_no_call():
    assert documented(Point.far, 'Point.far').startswith('### Point.far\n\n```python\nPoint.far\n```')
    assert line(Point.far)>line(Point)

def test_a_protocol_shows_what_it_asks_for():
    text = documented(Reader, 'Reader')
    assert 'def read(self, n:int) -> str: ... # n characters' in text and '| parameter' not in text

def test_a_command_shows_its_options():
    from emofeedback.cli.main import rate
    table = described(rate)
    assert '| `FILES` |' in table and '| `--json` |' in table and ' object at ' not in table
    assert described(weigh) is None

def test_a_link_is_not_linked_again():
    text = f'as [[`read_image`]({doc_cells.host}/images.html#read_image)](../00_images.ipynb) does'
    assert doc_cells.links(text, 'core')=='as [`read_image`](../images.ipynb) does'

def test_quotes_of_a_caption_are_not_shown():
    source = '#| echo: false\n#| fig-cap: "Above: the base. Below: \\"after\\"."\n#| fig-alt: a "lake"\nplot()'
    assert doc_cells.directives_of(source)=={'echo': 'false', 'fig-cap': 'Above: the base. Below: "after".',
                                             'fig-alt': 'a "lake"'}

def test_named_tests_are_there():
    said = {p.name: [n for c in p.cells for n in re.findall(r'`(?:tests/)?([\w/]*\btest_\w+\.py)`', c.source)]
            for p in plan.pages()}
    assert len(said['guide/paper'])>20
    assert not [(p, n) for p,names in said.items() for n in names if not (root/'tests'/n).is_file()]

def test_landing_pictures_are_small(tmp_path):
    doc_plane.write_sheets(tmp_path)
    files = list(tmp_path.glob('*.webp'))
    assert len(files)==2*len(doc_plane.scenes())==6
    assert sum(f.stat().st_size for f in files)<400e3
    assert (tmp_path/'plane_rf_0.webp').name in doc_plane.landing()

PAGES = {
    'index': '# Home\n\n```{toctree}\ncore\nagree\nextend\n```', 'core': '# Core\n\n## Judge\n\nSays what it sees.',
    'agree': '# A judge agrees with itself\n\nThe judge, judged.',
    'extend': '---\nmyst:\n  html_meta:\n    keywords: custom, reward\n---\n# Extend',
    'listing': '---\norphan: true\nnosearch: true\n---\n\n# Judge\n\nThe source.'}

def test_search_puts_a_class_first(tmp_path):
    (tmp_path/'src').mkdir()
    for name,text in PAGES.items(): (tmp_path/f'src/{name}.md').write_text(text)
    subprocess.run([sys.executable, '-m', 'sphinx', '-qc', root/'docs', tmp_path/'src', tmp_path/'html'], check=True)
    with opened(tmp_path/'chromium') as b:
        def found(query):
            b.call('Page.navigate', url=f'{(tmp_path/"html/search.html").as_uri()}?q={query}')
            links = '[...document.querySelectorAll("#search-results li > a")].map(a => a.textContent)'
            b.until(lambda: 'found' in (b.js('document.querySelector(".search-summary")?.textContent') or ''))
            return b.js(links)
        judge = found('Judge')
        assert judge[0]=='Core > Judge' and {'Core', 'A judge agrees with itself'}<set(judge) and 'Judge' not in judge
        assert found('custom%20reward')==['Extend']
