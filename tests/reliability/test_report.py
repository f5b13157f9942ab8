'A folder of results that somebody else made: nothing in it becomes a live part of the page'
import json
from pathlib import Path

import pytest

from emofeedback.demo.claims import StudyFiles
from emofeedback.demo.report import write_report
from emofeedback.runs import write_json, write_jsonl

RECORDED = Path(__file__).parents[2]/'nbs/recorded/demo'
SETTINGS = json.loads((RECORDED/'run.json').read_text())
HOSTILE = '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>'

def leaves(o, path=()):
    'The paths to all values of nested lists and dictionaries'
    if not isinstance(o, (dict, list)) or not o: return [path]
    items = o.items() if isinstance(o, dict) else enumerate(o)
    return [p for k,v in items for p in leaves(v, (*path, k))]

def with_value(o, path, value):
    if not path: return value
    if isinstance(o, dict): return {k: with_value(v, path[1:], value) if k==path[0] else v for k,v in o.items()}
    return [with_value(v, path[1:], value) if k==path[0] else v for k,v in enumerate(o)]

def with_key(o, path, key): # in place of the last part of the path
    *above, last = path
    inside = o
    for k in above: inside = inside[k]
    if isinstance(inside, list): return with_value(o, path, key)
    return with_value(o, above, {key if k==last else k: v for k,v in inside.items()})

FILES = dict(
    settings=SETTINGS | dict(requests=SETTINGS['requests'][:2]), # the rest is alike
    results=json.loads((RECORDED/'results.json').read_text()),
    log=[{'update': k, 'seconds': k, 'pictures': k, 'reward/valence': -1., 'reward/arousal': -1.} for k in (1, 2)],
    curve=[dict(seconds=k, v_error=1., a_error=1.) for k in (1, 2)],
    case=dict(content='a lake', target=[1., 1.], best=[0, 0], rounds=[
        dict(text=f'a lake {k}', scores=[-1., None], suggestion='fire', note='refused') for k in (1, 2)]))
PLACES = [(name, path) for name,o in FILES.items() for path in leaves(o)]

def written(folder, files):
    'The page of these files, or the sentence that refuses them'
    at = StudyFiles(folder)
    at.make()
    (at.cases('base')/'0').mkdir(parents=True, exist_ok=True)
    at.training.mkdir(exist_ok=True)
    for name in ('settings', 'results'): write_json(getattr(at, name), files[name])
    for name in ('log', 'curve'): write_jsonl(getattr(at, name), files[name])
    write_json(at.cases('base')/'0/feedback.json', files['case'])
    try: return write_report(folder).read_text()
    except ValueError as e:
        assert 'holds what no demo writes' in str(e)
        return ''

def test_no_text_of_a_file_is_live(tmp_path):
    whole = written(tmp_path, FILES)
    assert len(PLACES)>200 and '<h2>Learning' in whole and 'a lake' in whole
    pages = 0
    for i,(name,path) in enumerate(PLACES):
        for change in (with_value, with_key):
            page = written(tmp_path, FILES|{name: change(FILES[name], path, HOSTILE[i%2])})
            pages += bool(page)
            assert '<script' not in page and '<img src=x' not in page, (name, path)
    assert pages>len(PLACES) # most of them are pages

@pytest.mark.parametrize('odd', [[], 5, 'x', None, {}])
def test_odd_files_are_refused_or_shown_without_them(tmp_path, odd):
    for name in FILES: written(tmp_path, FILES|{name: odd} if name in ('settings', 'results', 'case') else FILES)
