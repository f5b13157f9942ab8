'Package metadata comes from `settings.ini`: edit that, not this'
import shlex
from configparser import ConfigParser
from pathlib import Path

import setuptools

root = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_path']
def words(k): return shlex.split(cfg.get(k, ''))

# pyproject.toml (kept in step by nbdev) declares these fields dynamic, so each must be given here
setuptools.setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], license='Apache-2.0',
    classifiers=['Development Status :: 3 - Alpha', f'Intended Audience :: {cfg["audience"]}',
                 'Programming Language :: Python :: 3'],
    long_description=(root/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=setuptools.find_namespace_packages(include=[lib, f'{lib}.*'], exclude=['*.__pycache__']),
    include_package_data=True, zip_safe=False,
    python_requires=f'>={cfg["min_python"]}', install_requires=words('requirements'),
    extras_require=dict(dev=words('doc_requirements')+words('dev_requirements'), docs=words('doc_requirements')),
    entry_points=dict(console_scripts=[o.strip() for o in cfg.get('console_scripts', '').splitlines() if o.strip()],
                      nbdev=[f'{lib}={lib}._modidx:d']))
