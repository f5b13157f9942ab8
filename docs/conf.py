'Sphinx settings for the site that `tools/build_docs.py` builds'
from configparser import ConfigParser
from pathlib import Path

from docutils.nodes import SkipNode, literal_block
from latex2mathml.converter import convert
from sphinx.addnodes import toctree

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here.parent/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
project, author, copyright, release = cfg['title'], cfg['author'], cfg['copyright'], cfg['version']

extensions = ['myst_nb', 'sphinx_copybutton']
nb_execution_mode = 'off'
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline', 'attrs_block']
myst_heading_anchors = 4
numfig, numfig_format = True, dict(figure='Figure %s')
suppress_warnings = ['myst.header']

def brand(color, visited):
    return {'color-brand-primary': color, 'color-brand-content': color, 'color-brand-visited': visited}

html_theme, html_title, html_favicon = 'furo', cfg['title'], str(here/'_static/plane.svg')
html_static_path, html_css_files, html_js_files = [str(here/'_static')], ['nb.css'], ['plane.js', 'search.js']
html_theme_options = dict(sidebar_hide_name=False, navigation_with_keys=True, top_of_page_buttons=[],
    light_logo='plane.svg', dark_logo='plane.svg',
    light_css_variables={**brand('#b3412c', '#8a4f7d'), 'color-code-background': '#fbfaf7',
                         'font-stack': 'Charter, "Bitstream Charter", "Source Serif 4", Georgia, serif'},
    dark_css_variables=brand('#f0a08e', '#c9a0c2'))
html_show_sourcelink = html_show_sphinx = html_copy_source = False

# Math as MathML: drawn by the browser itself, so the pages need no script and no network
html_math_renderer = 'mathml'

def _math(template, **kw):
    def visit(self, node):
        self.body.append(template.format(convert(node.astext(), **kw)))
        raise SkipNode
    return visit

def numbered_lines(app, tree):
    'A source listing has an anchor at each line'
    for node in tree.findall(literal_block):
        if app.env.docname.startswith('source/'): node['highlight_args'] = dict(lineanchors='L')

def title_only(toc):
    'The contents of a page without its sections; what lists other pages stays whole'
    if any(toc.findall(toctree)): return toc
    toc = toc.deepcopy()
    for item in toc: del item[1:]
    return toc

def sidebar(app, page, template, context, doctree):
    'The tree of titles beside each page is made from titles: Sphinx would copy every section of every page, to drop it'
    tree, env = context['toctree'], app.env
    if not hasattr(app, 'titles'): app.titles = {k: title_only(o) for k,o in env.tocs.items()}
    def of_titles(**how):
        whole, env.tocs = env.tocs, app.titles
        try: return tree(**how)
        finally: env.tocs = whole
    context['toctree'] = of_titles

def setup(app):
    app.connect('doctree-read', numbered_lines)
    app.connect('html-page-context', sidebar, priority=400) # before the theme asks for the tree
    inline, display = _math('{}'), _math('<div class="math">{}</div>', display='block')
    app.add_html_math_renderer('mathml', (inline, None), (display, None))
