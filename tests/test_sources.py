'Readers of data sets, on small trees made here: every trap we know of, and fuzz; what a lesson can say is in nbs/data'
import json
import math
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emofeedback.affect import EMOTIONS
from emofeedback.core import Affect
from emofeedback.data import emoset, human, tables
from emofeedback.data.files import Skipped
from emofeedback.data.labels import SPLITS, Row
from emofeedback.images import png_bytes
from emofeedback.mini.rows import mini_rows, write_emoset, write_picture
from emofeedback.runs import write_json

PAINTED = list(mini_rows(32, size=16))

@pytest.fixture
def root(tmp_path): return write_emoset(PAINTED, tmp_path/'emoset')

@pytest.fixture
def outside(tmp_path):
    'A folder beside the data set with something in it that nobody may open'
    d = tmp_path/'outside'
    d.mkdir()
    (d/'secret.jpg').write_bytes(PAINTED[0].image)
    (d/'secret.json').write_text('{"emotion": "awe"}')
    return d

def outcome(error, skipped):
    'How a damaged file was taken'
    if error: return type(error).__name__
    return 'skipped' if len(skipped) else 'whole'

opened, watching = [], [False]
def hook(event, args):
    if watching[0] and event in ('open', 'os.scandir', 'os.listdir') and isinstance(args[0], (str, bytes, os.PathLike)):
        opened.append(os.fspath(args[0]))
sys.addaudithook(hook)

@contextmanager
def watched():
    'All that Python opens or lists meanwhile'
    opened.clear()
    watching[0] = True
    try: yield opened
    finally: watching[0] = False

def under(folder, paths):
    base = os.path.realpath(folder)
    return [o for o in paths if isinstance(o, str) and '\0' not in o and os.path.realpath(o).startswith(base)]

def check(row, root=None):
    'What every row has to be, whatever came in'
    assert isinstance(row, Row) and row.split in SPLITS and (row.emotion is None or row.emotion in EMOTIONS)
    assert row.affect is None or isinstance(row.affect,
                                            Affect) and all(math.isfinite(x) and -3<=x<=3 for x in row.affect)
    assert isinstance(row.name, str) and row.name and not row.name.startswith('/') and '..' not in row.name.split('/')
    json.dumps(dict(row.attributes), allow_nan=False)
    for text in (row.name, row.neutral, row.emotional, json.dumps(dict(row.attributes), ensure_ascii=False)):
        text.encode()
    assert isinstance(row.source, str) and row.source
    if isinstance(row.image, (str, Path)):
        assert os.path.isfile(row.image)
        if root is not None: assert os.path.realpath(row.image).startswith(os.path.realpath(root)+os.sep)
    else: assert row.image is None or isinstance(row.image, bytes) and row.image

def collect(reader, *args, root=None, **kw):
    'Rows and what was skipped, all rows checked, no name twice; or the error of the call, which must say what to do'
    skipped = Skipped()
    try: rows = reader(*args, skipped=skipped, **kw)
    except (ValueError, OSError) as e:
        assert ':' in str(e) or isinstance(e, OSError), f'no remedy in: {e}'
        return [], skipped, e
    rows = list(rows)
    for r in rows: check(r, root)
    assert len({r.name for r in rows})==len(rows)
    for where,why in skipped.rows: assert where and why and ':' in why and len(why)<2000
    return rows, skipped, None

def edit(path, change):
    value = json.loads(path.read_text(encoding='utf-8'))
    res = change(value)
    path.write_text(json.dumps(value if res is None else res), encoding='utf-8')

# ---- EmoSet, the official folder

@pytest.mark.parametrize('elements', (3, 4))
@pytest.mark.parametrize('old', (False, True))
def test_layouts_give_the_same_rows(tmp_path, elements, old):
    root = write_emoset(PAINTED, tmp_path/'x', elements, old)
    assert len(json.loads((root/'train.json').read_text())[0])==elements
    assert ('emotion' in json.loads((root/'info.json').read_text())) != old
    rows, skipped, _ = collect(emoset.read_emoset, root, root=root)
    want = {r.name: r for r in PAINTED}
    assert not len(skipped) and {r.name for r in rows}==set(want)
    for r in rows:
        assert (r.emotion, r.split, r.attributes, r.source) == (want[r.name].emotion, want[r.name].split,
                                                                want[r.name].attributes, 'emoset')
        assert r.affect is None and Path(r.image).read_bytes()==want[r.name].image

def test_numbers_mean_what_info_says(root):
    order = sorted(EMOTIONS)
    write_json(root/'info.json',
               dict(label2idx={e: i for i,e in enumerate(order)}, idx2label={str(i): e for i,e in enumerate(order)}))
    words = {r.name: r.emotion for r in collect(emoset.read_emoset, root)[0]}
    for s in SPLITS: edit(root/f'{s}.json', lambda t: [[order.index(o[0]), *o[1:]] for o in t])
    rows, skipped, _ = collect(emoset.read_emoset, root)
    assert not len(skipped) and {r.name: r.emotion for r in rows}==words

def test_info_may_be_missing_but_not_wrong(root):
    (root/'info.json').unlink()
    assert len(collect(emoset.read_emoset, root)[0])==32
    for bad in ('{', '[]', '{"emotion": 3}', '{"label2idx": {"awe": 0}, "idx2label": {"0": "fear"}}'):
        (root/'info.json').write_text(bad)
        with pytest.raises(ValueError): emoset.read_emoset(root)

@pytest.mark.parametrize('data', (b'{"a": 1', b'\xff\xfe', b'['*100_000, b'[]', b'{}', b'3'))
def test_a_damaged_info_is_named(root, data):
    (root/'info.json').write_bytes(data)
    with pytest.raises(ValueError, match='info.json.*get a fresh copy'): emoset.read_emoset(root)

def test_missing_and_textual_attributes_are_normal(root):
    notes = sorted((root/'annotation').rglob('*.json'))
    notes[0].write_text('{}')
    notes[1].write_text('{"brightness": "0.3", "colorfulness": "1.0", "object": "dog", "scene": null}')
    notes[2].write_bytes(b'\xef\xbb\xbf'+notes[2].read_bytes())
    rows, skipped, _ = collect(emoset.read_emoset, root)
    said = {Path(r.name).stem: r.attributes for r in rows}
    assert not len(skipped) and said[notes[0].stem]=={} and said[notes[1].stem]==dict(brightness=.3, colorfulness=1.,
                                                                                      object=['dog'])

def first(root, split='train'): return json.loads((root/f'{split}.json').read_text())[0]
def rewrite(**keys):
    def change(root):
        p = root/first(root)[3]
        edit(p, lambda o: {**o, **keys})
    return change
def raw(data): return lambda root: (root/first(root)[3]).write_bytes(data)
def row_is(f): return lambda root: edit(root/'train.json', lambda t: t.__setitem__(0, f(t[0])))

TRAPS = {
    'truncated': (raw(b'{"emotion": "aw'), 'broken annotation'), 'empty': (raw(b''), 'broken annotation'),
    'list': (raw(b'[]'), 'broken annotation'),
    'number': (raw(b'3'), 'broken annotation'),
    'latin-1': (raw('{"scene": "café"}'.encode('latin-1')), 'broken annotation'),
    'utf-16': (raw('{"scene": "x"}'.encode('utf-16')), 'broken annotation'),
    'deep': (raw(b'['*50_000), 'broken annotation'), 'nul': (raw(b'\0'*100), 'broken annotation'),
    'long number': (raw(b'{"brightness": '+b'9'*5000+b'}'), 'broken annotation'),
    'long': (raw(b'{"scene": "'+b'x'*200_000+b'"}'), 'broken annotation'),
    'huge': (raw(b'{"brightness": '+b'9'*400+b'}'), 'not a number'),
    'nan': (raw(b'{"brightness": NaN}'), 'not a number'),
    'infinity': (raw(b'{"colorfulness": -Infinity}'), 'not a number'),
    'true': (rewrite(brightness=True), 'not a number'),
    'off': (rewrite(brightness=1.1), 'off the scale'), 'list of numbers': (rewrite(object=[1, 2]), 'broken annotation'),
    'dict': (rewrite(scene={}), 'broken annotation'),
    'surrogate': (raw(b'{"scene": "\\ud800"}'), 'broken annotation'),
    'another emotion': (row_is(lambda r: [next(e for e in EMOTIONS if e!=r[0]), *r[1:]]), 'two emotions'),
    'emotion of annotation': (rewrite(emotion='joy'), 'unknown emotion'),
    'emotion a list': (rewrite(emotion=['awe']), 'unknown emotion'),
    'unknown': (row_is(lambda r: ['joy', *r[1:]]), 'unknown emotion'),
    'null': (row_is(lambda r: [None, *r[1:]]), 'unknown emotion'),
    'number out of range': (row_is(lambda r: [99, *r[1:]]), 'unknown emotion'),
    'two elements': (row_is(lambda r: r[:2]), 'broken row'), 'five': (row_is(lambda r: r+['x']), 'broken row'),
    'text': (row_is(lambda r: 'row'), 'broken row'), 'object': (row_is(lambda r: {}), 'broken row'),
    'picture a number': (row_is(lambda r: [*r[:2], 7, r[3]]), 'leads out of the folder'),
    'picture lost': (lambda root: (root/first(root)[2]).unlink(), 'no picture'),
    'annotation lost': (lambda root: (root/first(root)[3]).unlink(), 'no annotation'),
    'picture a folder': (lambda root: ((root/first(root)[2]).unlink(), (root/first(root)[2]).mkdir()), 'no picture'),
    'annotation a pipe': (lambda root: ((root/first(root)[3]).unlink(), os.mkfifo(root/first(root)[3])),
                          'no annotation'),
    'twice': (lambda root: edit(root/'train.json', lambda t: t.insert(1, t[0])), 'again'),
    'two splits': (lambda root: edit(root/'val.json', lambda t: t.append(first(root))), 'again'),
    'another spelling': (lambda root: edit(root/'val.json',
                                           lambda t: t.append([first(root)[0], 'x',
                                                               './'+first(root)[2].replace('/', '\\'),
                                                               first(root)[3]])), 'again'),
}

@pytest.mark.parametrize('name', TRAPS)
def test_a_broken_row_is_counted_and_the_others_live(root, name):
    change, kind = TRAPS[name]
    change(root)
    total = sum(len(json.loads((root/f'{s}.json').read_text())) for s in SPLITS)
    rows, skipped, error = collect(emoset.read_emoset, root, root=root)
    assert error is None and skipped.counts()=={kind: 1} and len(rows)==total-1>=31

LEADING_OUT = ['../outside/secret.jpg', '..\\outside\\secret.jpg', 'image/../../outside/secret.jpg', '/etc/passwd',
               '//etc/passwd', 'C:\\secret.jpg', 'C:secret.jpg', '\\\\host\\share', 'image/awe/\0.jpg',
               '.', '', ' ', '..', 'image/..', '~/secret.jpg', 'file:///etc/passwd', 'image/awe/\ud800.jpg', 'x'*5000,
               'a/'*3000+'x', 'image/\udcff/x.jpg']

@pytest.mark.parametrize('path', LEADING_OUT, ids=range(len(LEADING_OUT)))
@pytest.mark.parametrize('place', (2, 3))
def test_nothing_outside_is_opened(root, outside, path, place):
    row_is(lambda r: [path if i==place else o for i,o in enumerate(r)])(root)
    with watched() as seen: rows,skipped,_ = collect(emoset.read_emoset, root, root=root)
    assert len(rows)==31 and len(skipped)==1
    assert not under(outside, seen) and not under('/etc', seen)

def test_links_are_followed_inside_only(root, outside):
    row, other = (json.loads((root/'train.json').read_text())[i] for i in (0, 1))
    (root/row[2]).unlink()
    (root/row[2]).symlink_to(outside/'secret.jpg')
    (root/other[3]).rename(root/'kept.json')
    (root/other[3]).symlink_to(root/'kept.json')
    (root/'image'/'linked').symlink_to(outside)
    (root/'annotation'/'linked').symlink_to(outside)
    edit(root/'val.json',
         lambda t: [*t, ['awe', 'x', 'image/linked/secret.jpg', other[3]],
                    ['awe', 'y', 'image/linked/../linked/secret.jpg', other[3]],
                    [other[0], 'z', row[2], 'annotation/linked/secret.json']])
    with watched() as seen: rows,skipped,_ = collect(emoset.read_emoset, root, root=root)
    assert skipped.counts()=={'leads out of the folder': 4} and len(rows)==31 and not under(outside, seen)
    assert other[2] in {r.name for r in rows}  # a link that stays inside is fine

NAMES = ['é.png', 'e\u0301.png', 'שלום.png', '\u202egpj.png', '👩\u200d🚀.png', ' blank .png', 'a\nb.png',
         'a;b,"c".png', '名前.png', '%2e%2e.png', '$HOME.png', "o'clock.png", '-rf.png', 'con.png']
def test_odd_but_real_names(tmp_path):
    def row(i, name):
        return Row(PAINTED[i].image, 'awe', name=f'image/awe/{name}', source='x', attributes=dict(scene=name))
    rows = [row(i, name) for i,name in enumerate(NAMES)]
    got, skipped, _ = collect(emoset.read_emoset, write_emoset(rows, tmp_path/'x'))
    assert not len(skipped) and {r.name for r in got}=={r.name for r in rows}
    for reader in (tables.read_classes, tables.read_folder):
        got, skipped, _ = collect(reader, tmp_path/'x'/'image')
        assert not len(skipped) and {Path(r.name).name for r in got}==set(NAMES)

def test_any_way_to_write_the_root(root, monkeypatch):
    want = [r.name for r in emoset.read_emoset(root)]
    monkeypatch.chdir(root)
    for o in ('.', './', '../emoset', './image/..', str(root)+'/', Path('.')):
        rows = collect(emoset.read_emoset, o)[0]
        assert [r.name for r in rows]==want
    monkeypatch.chdir(root.parent)
    assert all(os.path.isfile(r.image) for r in rows)  # rows outlive a change of folder

@pytest.mark.parametrize('depth', (100, 500, 900, 950))
def test_nested_values(root, depth):
    raw(b'{"scene": '+b'['*depth+b']'*depth+b'}')(root)
    rows, skipped, _ = collect(emoset.read_emoset, root)
    assert len(rows)==31 and len(skipped)==1
    (root/'train.json').write_text(f'[[{"["*depth+"]"*depth}, "image/awe/x.png", "annotation/awe/x.json"]]')
    rows, skipped, error = collect(emoset.read_emoset, root)
    assert error or len(skipped)==1

def test_wrong_folders_fail_at_the_call(root, tmp_path):
    for reader,at,says in ((emoset.read_emoset, tmp_path, 'one level deeper, in emoset'),
                           (emoset.read_emoset, root/'image', 'pass the folder that holds'),
                           (emoset.open_emoset, tmp_path/'none', 'neither'),
                           (emoset.open_emoset, root/'train.json', 'unpack it first'),
                           (emoset.read_emoset_parquet, root, 'no parquet or arrow file'),
                           (tables.read_classes, root, 'read_folder'),
                           (tables.read_folder, tmp_path/'none', 'no folder of pictures')):
        with pytest.raises((ValueError, OSError), match=says): reader(at)
    for s in ('{', '{}', '3', ''):
        (root/'val.json').write_text(s)
        with pytest.raises(ValueError, match='get a fresh copy'): emoset.read_emoset(root)
        assert len(list(emoset.read_emoset(root, ['train'])))>20  # the others are not concerned
    (root/'val.json').unlink()
    with pytest.raises(FileNotFoundError, match='val.json'): emoset.read_emoset(root)
    for s in ([], 'train', ['dev']):
        with pytest.raises(ValueError, match='choose from'): emoset.read_emoset(root, s)

def test_rows_come_lazily_and_in_order(root):
    with watched() as seen:
        rows = emoset.read_emoset(root)
        assert not [o for o in seen if 'annotation' in str(o)]
        next(rows), next(rows)
        assert len([o for o in seen if str(o).endswith('.json') and 'annotation' in str(o)])==2
        del seen[:]
        list(emoset.read_emoset(root, attributes=False))
        assert not [o for o in seen if 'annotation' in str(o)]
    assert [r.name for r in emoset.read_emoset(root)]==[o[2] for s in SPLITS
                                                        for o in json.loads((root/f'{s}.json').read_text())]

# ---- fuzz

ODD = [None, True, 0, -1, 3.5, 1e308, 10**30, '', 'awe', 'x'*3000, '\ud800', '\0', '../..', '/etc/passwd', [], {}, [[]],
       [None], {'a': []}, float('nan'), float('inf'), ['image', 'awe'], '💥', '0.5', 'NaN']

def spoil(value, rng):
    'A JSON value with something odd somewhere in it'
    if isinstance(value, (list, dict)) and value and rng.random()<.8:
        k = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        what = rng.random()
        if what<.1: del value[k]
        elif what<.2 and isinstance(value, dict): value[rng.choice(['x', '', 'emotion', '\ud800'])] = rng.choice(ODD)
        else: value[k] = spoil(value[k], rng)
        return value
    return rng.choice(ODD)

def damage(data, rng):
    'Bytes with a part lost, turned, or put in'
    data, n = bytearray(data), len(data)
    kind = rng.randrange(4)
    if kind==0: return bytes(data[:rng.randrange(n+1)])
    for _ in range(rng.randint(1, 6)):
        i = rng.randrange(len(data) or 1)
        if kind==1 and data: data[i] = rng.randrange(256)
        elif kind==2: data[i:i+rng.randint(1, 9)] = b''
        else:
            data[i:i] = rng.choice([b'\0', b'\xff\xfe', b'"', b',', b'\n', b'9'*400, b'[', b'NaN', b'../',
                                    '\u202e'.encode(), b'\r'])
    return bytes(data)

def test_fuzzed_values(tmp_path, outside):
    rng, ways = random.Random(0), Counter()
    base = write_emoset(PAINTED[:8], tmp_path/'base')
    files = sorted(o for o in base.rglob('*.json'))
    for k in range(250):
        file = rng.choice(files)
        before = file.read_bytes()
        file.write_text(json.dumps(spoil(json.loads(before), rng)))
        with watched() as seen: rows,skipped,error = collect(emoset.read_emoset, base, root=base)
        assert not under(outside, seen) and not under('/etc', seen)
        if error is None:
            assert len(rows)+len(skipped)==sum(len(json.loads((base/f'{s}.json').read_text())) for s in SPLITS)
        ways.update([outcome(error, skipped)])
        file.write_bytes(before)
    assert min(ways[o] for o in ('ValueError', 'skipped', 'whole'))>10, ways  # all three ways out were taken

def emotic_mat(path, broken=False):
    'A small Annotations.mat as Matlab structures it'
    from scipy.io import savemat
    def struct(*items):
        res = np.empty(len(items), dtype=[(k, object) for k in items[0]])
        for i,o in enumerate(items): res[i] = tuple(o.values())
        return res
    def vad(v, a): return dict(valence=v, arousal=a, dominance=5.)
    def person(*rated, words=('Peace',), **more):
        return dict(body_bbox=[1, 2, 3, 4],
                    annotations_categories=struct(*[dict(categories=list(words)) for _ in rated]),
                    annotations_continuous=struct(*[vad(*o) for o in rated]), **more, gender='Male', age='Adult')
    def photo(i, *people):
        return dict(filename=f'{i}.jpg', folder='mscoco/images', image_size=struct(dict(n_col=64, n_row=64)),
                    person=struct(*people))
    both = person((8., 2.), (10., 4.), (9., np.nan), words=('Fear', 'Pain'), combined_categories=['Fear', 'Pain'],
                  combined_continuous=struct(vad(9., 4.)))
    apart = person((8., 2.), (10., 4.), (9., np.nan), combined_categories=['Fear'],
                   combined_continuous=struct(vad(np.nan, np.nan)))
    savemat(path,
            dict(train=struct(photo(0, person((1., 10.)), person((10., 10.)), person((11., 3.))),
                              photo(1, person((np.nan, 3.))), photo(9, person((5., 5.)))), val=struct(photo(2, both)),
                              test=struct(photo(3, apart))))
    return path

@pytest.fixture
def pictures(tmp_path):
    d = tmp_path/'pictures'
    for i in range(8):
        write_picture(PAINTED[i].image, d/'mscoco'/'images'/f'{i}.jpg')
        write_picture(PAINTED[i].image, d/f'Scene {i}.jpg')
    return d

def parquet(path, rows, names=None, plain=False, **metadata):
    'Rows as a parquet file the way `datasets` writes it, or barely'
    import pyarrow as pa
    import pyarrow.parquet as pq
    image = [o.image for o in rows] if plain else [dict(bytes=o.image, path=Path(o.name).name) for o in rows]
    label = [names.index(o.emotion) for o in rows] if names else [o.emotion for o in rows]
    table = pa.table(dict(image=image, label=label))
    features = dict(image=dict(_type='Image'),
                    label=dict(_type='ClassLabel', names=names) if names else dict(_type='Value', dtype='string'))
    if not plain:
        table = table.replace_schema_metadata(dict(huggingface=json.dumps(dict(info=dict(features=features)))))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path

OASIS = ',Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N\n'
OASIS += ''.join(f'I{i},Scene {i} ,Scene,Internet,{2+i/2},1.2,101,{6-i/2},1.5,103\n' for i in range(8))
FINDING = 'user,image_path,reject,valence,arousal,emotion\n'
for i,w in enumerate(('Fear', 'Joy', 'Sadness', 'a ""b"", c', 'Rage')):
    FINDING += f'u{i},/mscoco/images/{i}.jpg,Keep,{i-3},{i},"{w}"\n'
EMOTIC = 'Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels,Gender,Age\n'
for i in range(8):
    EMOTIC += (f'{i},mscoco/images,{i//2}.jpg,"[1, 2]","[1, 2, 3, 4]","[\'Peace\']","[{i+1}.0, {9-i}.0, 5.0]",'
               'Male,Adult\n')
PROMPTS = 'Neutral_Prompt,Emotional_Prompt,Arousal,Valence\n'
PROMPTS += ''.join(f'"a lake, {i}","a calm\nlake, ""{i}""",{i/3-1},{1-i/3}\n' for i in range(8))
OWN = 'image,valence,arousal,emotion,caption,split\n'
for i,s in enumerate(('train', 'val', 'validation', 'test', 'dev', '')):
    OWN += f'Scene {i}.jpg,{i-3},{3-i},awe,"a sea, {i}",{s}\n'

def own(path, pictures, skipped): return tables.read_table(path, pictures, skipped=skipped)
def own_line(i):
    return json.dumps(dict(image=f'Scene {i}.jpg', valence=i-3, arousal=str(3-i), object=['a', 'b'], scene='sea',
                           split='dev', caption='a\nb'))

READERS = { # name -> file name, its content, how to read it
    'oasis': ('OASIS.csv', OASIS, human.read_oasis),
    'findingemo': ('annotations_single.ann', FINDING, human.read_findingemo),
    'emotic': ('train.csv', EMOTIC, human.read_emotic),
    'emoticrafter': ('prompt_mapping.csv', PROMPTS, lambda p, d, skipped: tables.read_emoticrafter(p, skipped)),
    'table': ('own.csv', OWN, own),
    'tsv': ('own.tsv', OWN.replace(',', '\t').replace('"a sea\t', '"a sea,'), own),
    'jsonl': ('own.jsonl', '\n'.join(map(own_line, range(6))), own),
}

@pytest.mark.parametrize('name', READERS)
def test_tables_read_whole_and_with_a_mark_at_the_start(tmp_path, pictures, name):
    file, text, read = READERS[name]
    n = dict(oasis=8, findingemo=5, emotic=4, emoticrafter=8).get(name, 6)
    for data in (text.encode(), b'\xef\xbb\xbf'+text.encode(), text.replace('\n', '\r\n').encode()):
        (tmp_path/file).write_bytes(data)
        rows, skipped, error = collect(read, tmp_path/file, pictures, root=pictures)
        assert (error, skipped.rows, len(rows))==(None, [], n)
        again = collect(read, tmp_path/file, pictures)[0]
        assert [(r.name, r.split, r.affect) for r in rows]==[(r.name, r.split, r.affect) for r in again]

def test_one_picture_in_two_spellings(tmp_path, pictures):
    lines = ['image_path,valence,arousal', '/Scene 0.jpg,1,1', 'mscoco//images/0.jpg,1,1', './Scene 0.jpg,2,2',
             'mscoco/images/0.jpg,1,1', '']
    (tmp_path/'a.ann').write_text('\n'.join(lines))
    rows, skipped, _ = collect(human.read_findingemo, tmp_path/'a.ann', pictures)
    assert [r.name for r in rows]==['Scene 0.jpg', 'mscoco/images/0.jpg'] and skipped.counts()=={'again': 2}

@pytest.mark.parametrize('name', READERS)
def test_fuzzed_tables(tmp_path, pictures, outside, name):
    file, text, read = READERS[name]
    rng, ways = random.Random(1), Counter()
    for k in range(150):
        (tmp_path/file).write_bytes(damage(text.encode(), rng))
        with watched() as seen: rows,skipped,error = collect(read, tmp_path/file, pictures, root=pictures)
        assert not under(outside, seen) and not under('/etc', seen)
        ways.update([outcome(error, skipped)])
    assert ways['skipped'] and ways['whole'], ways

@pytest.mark.parametrize('name', [o for o in READERS if o!='jsonl'])
def test_tables_without_their_columns_fail_at_the_call(tmp_path, pictures, name):
    file, text, read = READERS[name]
    for data in (b'', b'a,b,c\n1,2,3\n', text.encode('utf-16'), b'\0'*99, b'x'*200_000):
        (tmp_path/file).write_bytes(data)
        with pytest.raises(ValueError, match='no column .* save it in UTF-8'): read(tmp_path/file, pictures, None)
    with pytest.raises(FileNotFoundError): read(tmp_path/'none'/file, pictures, None)
    if name!='emoticrafter':
        (tmp_path/file).write_text(text)
        with pytest.raises(FileNotFoundError, match='pass it as `pictures`'): read(tmp_path/file, tmp_path/'none', None)

@pytest.mark.parametrize('name', ['oasis', 'findingemo', 'emotic', 'emoticrafter', 'table'])
@pytest.mark.parametrize('value,kind',
                         [('nan', 'not a number'), ('inf', 'not a number'), ('', 'not a number'),
                          ('1e999', 'not a number'), ('9'*400, 'not a number'), ('100', 'off the scale'),
                          ('-100', 'off the scale'), ('calm', 'not a number'), ('٣', None), ('1_0', None)])
def test_numbers_off_their_scale(tmp_path, pictures, name, value, kind):
    file, text, read = READERS[name]
    cell = dict(oasis='2.0', findingemo='-3', emotic='1.0', emoticrafter='-1.0', table='-3')[name]
    spot = dict(emoticrafter=f',{cell},', emotic=f'[{cell},').get(name, f',{cell},')
    assert spot in text
    (tmp_path/file).write_text(text.replace(spot, spot.replace(cell, value), 1))
    rows, skipped, error = collect(read, tmp_path/file, pictures)
    assert error is None and len(skipped)==(kind is not None) or kind is None
    if (name, value)==('table', ''): kind = 'half a label'
    if kind: assert skipped.counts()=={kind: 1}

def test_scales(tmp_path, pictures):
    def affects(name, text):
        (tmp_path/READERS[name][0]).write_text(text)
        return [tuple(round(x, 6) for x in r.affect)
                for r in collect(READERS[name][2], tmp_path/READERS[name][0], pictures)[0]]
    head = OASIS.splitlines()[0]
    assert affects('oasis', f'{head}\n,Scene 0,,,1,0,1,7,0,1\n,Scene 1,,,4,0,1,4,0,1')==[(-3, 3), (0, 0)]
    head = FINDING.splitlines()[0]
    assert affects('findingemo',
                   f'{head}\n,/Scene 0.jpg,,-3,0,\n,/Scene 1.jpg,,3,6,\n,Scene 2.jpg,,0,3,')==[(-3, -3), (3, 3), (0, 0)]
    head = EMOTIC.splitlines()[0]
    people = '0,.,Scene 0.jpg,,,"[]","[1, 10, 5]",,\n1,.,Scene 1.jpg,,,"[]","[5.5, 5.5, 5]",,'
    assert affects('emotic', f'{head}\n{people}')==[(-3, 3), (0, 0)]
    p = tmp_path/'own.csv'
    p.write_text('image,valence,arousal\nScene 0.jpg,0,1\nScene 1.jpg,.5,.25')
    assert [tuple(r.affect) for r in tables.read_table(p, pictures, 0, 1)]==[(-3, 3), (0, -1.5)]
    for ends in ((3, 3), (3, -3), (math.nan, 1)):
        with pytest.raises(ValueError): tables.read_table(p, pictures, *ends)

def test_emotic_mat(tmp_path, pictures):
    rows, skipped, _ = collect(human.read_emotic, emotic_mat(tmp_path/'Annotations.mat'), pictures, root=pictures)
    got = {Path(r.name).stem: (r.split, tuple(round(x, 4) for x in r.affect), dict(r.attributes), r.emotion)
           for r in rows}
    assert got=={'0': ('train', (0, 3), dict(people=2, word='Peace'), None),
                 '2': ('val', (2.3333, -1.0), dict(people=1, word='Fear, Pain'), None),
                 '3': ('test', (2.3333, -1.6667), dict(people=1, word='Fear, Peace'), None)}
    assert skipped.counts()=={'off the scale': 1, 'not a number': 1, 'no picture': 1}

@pytest.mark.parametrize('seed', (0, 39, 53, 90))  # the last three crash SciPy's reader (1.17, Linux)
def test_damaged_mat(tmp_path, pictures, seed):
    data = emotic_mat(tmp_path/'a.mat').read_bytes()
    (tmp_path/'b.mat').write_bytes(damage(data, random.Random(seed)))
    rows, skipped, error = collect(human.read_emotic, tmp_path/'b.mat', pictures, root=pictures)
    assert rows or isinstance(error, ValueError) and 'get a fresh copy' in str(error)

def test_other_mat_files(tmp_path, pictures, monkeypatch):
    from scipy.io import savemat
    savemat(tmp_path/'a.mat', dict(x=3))
    with pytest.raises(ValueError, match='no train, val or test.*get a fresh copy'):
        human.read_emotic(tmp_path/'a.mat', pictures)
    # whole files: no need of another process
    monkeypatch.setattr(human, 'mat_people_apart', lambda p: iter(human.mat_people(str(p))))
    for value in (dict(train=3), dict(train=np.zeros((0, 0))), dict(train=dict(filename='0.jpg', person=4)),
                  dict(val=dict(folder=3, filename=[1, 2],
                                person=dict(annotations_continuous=dict(valence='high', arousal=[1, 2]))))):
        savemat(tmp_path/'a.mat', value)
        assert collect(human.read_emotic, tmp_path/'a.mat', pictures)[::2]==([], None)

@pytest.mark.parametrize('name', ('scipy', 'json', 'numpy', 'emofeedback'))
def test_the_reader_of_mat_runs_no_code_of_the_current_folder(tmp_path, pictures, monkeypatch, name):
    mat = emotic_mat(tmp_path/'Annotations.mat')
    (tmp_path/'here').mkdir()
    (tmp_path/f'here/{name}.py').write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path/'here')
    monkeypatch.setattr(sys, 'executable', os.path.abspath(sys.executable))
    assert len(list(human.read_emotic(mat, pictures)))==3
    assert os.listdir('.')==[f'{name}.py']

def test_the_reader_of_mat_does_not_wait_for_ever(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(human, 'READ_MAT', 'import time; time.sleep(60)')
    monkeypatch.setattr(human, 'MAT_SECONDS', .5)
    with pytest.raises(ValueError, match='b.mat cannot be read .*0.5 s.* get a fresh copy'):
        human.mat_people_apart(tmp_path/'b.mat')

# ---- parquet

def test_parquet_forms(tmp_path):
    from datasets import load_dataset
    want = [(r.image, r.emotion) for r in PAINTED[:8]]
    for i,kw in enumerate((dict(names=sorted(EMOTIONS)), dict(names=EMOTIONS), {}, dict(plain=True))):
        d = parquet(tmp_path/str(i)/'data'/'validation-00000-of-00001.parquet', PAINTED[:8], **kw).parent.parent
        rows, skipped, _ = collect(emoset.read_emoset_parquet, d)
        assert not len(skipped) and [(r.image, r.emotion) for r in rows]==want and {r.split for r in rows}=={'val'}
        assert [r.name for r in emoset.open_emoset(d)]==[r.name for r in rows]
    load_dataset('parquet', data_files=str(tmp_path/'0'/'data'/'*.parquet'),
                 cache_dir=str(tmp_path/'cache'))['train'].save_to_disk(tmp_path/'disk'/'test')
    rows, skipped, _ = collect(emoset.read_emoset_parquet, tmp_path/'disk')  # arrow files
    assert [(r.image, r.emotion, r.split) for r in rows]==[(*o, 'test') for o in want]

def test_parquet_traps(tmp_path, outside):
    import pyarrow as pa
    import pyarrow.parquet as pq
    parquet(tmp_path/'a'/'train.parquet', PAINTED[:4], names=sorted(EMOTIONS), plain=True)
    with pytest.raises(ValueError, match='numbers that nothing names'): emoset.read_emoset_parquet(tmp_path/'a')
    pq.write_table(pa.table(dict(x=[1])), tmp_path/'a'/'train.parquet')
    with pytest.raises(ValueError, match='no column of pictures'): emoset.read_emoset_parquet(tmp_path/'a')
    (tmp_path/'a'/'train.parquet').write_bytes(b'PAR1')
    with pytest.raises(ValueError, match='download it again'): emoset.read_emoset_parquet(tmp_path/'a')
    d = tmp_path/'b'
    write_picture(PAINTED[0].image, d/'here.png')
    image = [dict(bytes=PAINTED[0].image, path='one.png'), dict(bytes=PAINTED[1].image, path='one.png'),
             dict(bytes=None, path='here.png'), dict(bytes=None, path='gone.png'),
             dict(bytes=None, path='../outside/secret.jpg'), None, dict(bytes=PAINTED[2].image, path=None),
             dict(bytes=b'', path=None)]
    pq.write_table(pa.table(dict(img=image, emotion=['awe', 'Fear ', 'awe', 'awe', 'awe', 'awe', 'joy', None],
                                 brightness=[.5]*8, scene=['sea']*8)), d/'train-0.parquet')
    with watched() as seen: rows,skipped,_ = collect(emoset.read_emoset_parquet, d, root=d)
    assert [(r.name, r.emotion) for r in rows]==[('one.png', 'awe'), ('train-0.parquet#1', 'fear'),
                                                 ('here.png',
                                                  'awe')] and rows[0].attributes==dict(brightness=.5, scene='sea')
    assert len(skipped)==5 and skipped.counts()['leads out of the folder']==1 and not under(outside, seen)
    # nothing but paths
    pq.write_table(pa.table(dict(img=['here.png', '../outside/secret.jpg', '/etc/passwd', '', None],
                                 emotion=['awe']*5)), d/'train-0.parquet')
    with watched() as seen: rows,skipped,_ = collect(emoset.read_emoset_parquet, d, root=d)
    assert [r.name for r in rows]==['here.png'] and len(skipped)==4 and not under(outside,
                                                                                  seen) and not under('/etc', seen)
    pq.write_table(pa.table(dict(img=[3, 4], emotion=['awe']*2)), d/'train-0.parquet')
    assert collect(emoset.read_emoset_parquet, d)[1].counts()=={'no picture': 2}

def test_an_arrow_file_whose_offsets_lie(tmp_path):
    import pyarrow as pa
    offsets = pa.py_buffer(np.array([0, 2**30, 3], np.int32).tobytes())
    words = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b'awe'))
    batch = pa.record_batch(dict(image=pa.array([PAINTED[0].image]*2), label=words))
    with pa.OSFile(str(tmp_path/'train.arrow'), 'wb') as f, pa.ipc.new_stream(f, batch.schema) as w:
        w.write_batch(batch)
    rows, skipped, error = collect(emoset.read_emoset_parquet, tmp_path)  # a crash of Python if they are believed
    assert not rows and skipped.counts()=={'broken file': 1}

def test_fuzzed_parquet(tmp_path):
    data, rng, ways = parquet(tmp_path/'a.parquet', PAINTED[:8],
                              names=sorted(EMOTIONS)).read_bytes(), random.Random(3), Counter()
    for k in range(120):
        (tmp_path/'d').mkdir(exist_ok=True)
        (tmp_path/'d'/'train.parquet').write_bytes(damage(data, rng))
        rows, skipped, error = collect(emoset.read_emoset_parquet, tmp_path/'d')
        ways.update([outcome(error, skipped)])
    assert ways['whole'] and sum(ways.values())-ways['whole']>30, ways

# ---- class folders, plain folders, tables of one's own

def test_class_folders(tmp_path, outside):
    for i,e in enumerate(['awe', 'Fear', 'joy']):
        write_picture(PAINTED[i].image, tmp_path/'c'/e/'deep'/'x.jpg')
        write_picture(PAINTED[i].image, tmp_path/'c'/e/f'{i}.JPG')
    (tmp_path/'c'/'awe'/'out.jpg').symlink_to(outside/'secret.jpg')
    (tmp_path/'c'/'awe'/'in.jpg').symlink_to(tmp_path/'c'/'Fear'/'1.JPG')
    (tmp_path/'c'/'sadness').symlink_to(outside)
    (tmp_path/'c'/'awe'/'gone.jpg').symlink_to(tmp_path/'nowhere')
    (tmp_path/'c'/'awe'/'Thumbs.db').write_bytes(b'')
    with open(os.fsencode(tmp_path/'c'/'awe')+b'/\xff\xfe.jpg', 'wb') as f: f.write(PAINTED[0].image)
    with watched() as seen: rows,skipped,_ = collect(tables.read_classes, tmp_path/'c', 'c', root=tmp_path/'c')
    assert [(r.name, r.emotion, dict(r.attributes)) for r in rows]==[('Fear/1.JPG', 'fear', {}),
                                                                     ('awe/0.JPG', 'awe', {}),
                                                                     ('awe/in.jpg', 'awe', {}),
                                                                     ('joy/2.JPG', None, dict(word='joy'))]
    assert skipped.counts()=={'leads out of the folder': 2, 'odd name': 1} and not under(outside, seen)
    skipped.write(tmp_path/'skipped.csv')
    rows, skipped, _ = collect(tables.read_folder, tmp_path/'c', root=tmp_path/'c')
    assert len(rows)==7 and {r.split for r in rows}<=set(SPLITS)

def test_a_split_does_not_depend_on_company(tmp_path, pictures):
    alone = {r.name: r.split for r in tables.read_folder(pictures)}
    shutil.rmtree(pictures/'mscoco')
    assert all(alone[r.name]==r.split for r in tables.read_folder(pictures))

def test_own_tables(tmp_path, pictures):
    p = tmp_path/'own.csv'
    lines = ['Image , VALENCE,arousal,emotion,caption,split,object', 'Scene 0.jpg,1,1,,"a ""b"",', 'c",dev,dog; cat;',
             'Scene 1.jpg,,,Awe,,,', 'Scene 2.jpg,,1,awe,,,', 'Scene 3.jpg,,,,,,', 'Scene 4.jpg,0,0,joy,,middle,',
             'scene 5.jpg,0,0,,,,', '/etc/passwd,0,0,,,,', 'Scene 6.jpg,0', '', 'Scene 7.jpg,0,0,Trust,,TEST,', '']
    p.write_text('\n'.join(lines), encoding='utf-8')
    rows, skipped, _ = collect(tables.read_table, p, pictures, root=pictures)
    assert [(r.name, r.emotion, r.affect and tuple(r.affect), r.neutral, dict(r.attributes))
            for r in rows]==[('Scene 0.jpg', None, (1, 1), 'a "b", c', dict(object=['dog', 'cat'])),
                             ('Scene 1.jpg', 'awe', None, '', {}),
                             ('Scene 7.jpg', None, (0, 0), '', dict(word='Trust'))]
    assert [r.split for r in rows][::2]==['val', 'test']
    assert skipped.counts()=={'half a label': 1, 'no label': 1, 'unknown split': 1, 'no picture': 1,
                              'leads out of the folder': 1, 'broken row': 1}
    p.write_text('image,valence,arousal\nScene 0.jpg,1,1\n./Scene 0.jpg,2,2\n')
    assert collect(tables.read_table, p, pictures)[1].counts()=={'again': 1}
    q = tmp_path/'own.jsonl'
    lines = [b'{"image": "Scene 0.jpg", "valence": 1, "arousal": 1}', b'[]', b'3',
             b'{"image": 7, "valence": 1, "arousal": 1}',
             b'{"image": "Scene 1.jpg", "valence": true, "arousal": 1}', b'',
             b'{"image": "Scene 2.jpg", "valence": 1, "arousal": {}}',
             b'{"image": "Scene 3.jpg", "emotion": ["awe"], "brightness": null}', b'['*100_000,
             b'{"image": "Scene 4.jpg", "valence": 1, "arousal": 1, "caption": "\\ud800"}']
    q.write_bytes(b'\n'.join(lines))
    rows, skipped, _ = collect(tables.read_table, q, pictures)
    assert [r.name for r in rows]==['Scene 0.jpg', 'Scene 3.jpg'] and len(skipped)==7

def test_attributes_have_one_rule(tmp_path, pictures, root):
    for value,kind in ((7, 'off the scale'), (-.1, 'off the scale'), ('high', 'not a number'), (True, 'not a number')):
        rewrite(brightness=value)(root)
        (tmp_path/'own.jsonl').write_text(json.dumps(dict(image='Scene 0.jpg', emotion='awe', brightness=value)))
        assert collect(emoset.read_emoset, root)[1].counts()=={kind: 1}
        assert collect(tables.read_table, tmp_path/'own.jsonl', pictures)[1].counts()=={kind: 1}
    (tmp_path/'own.csv').write_text('image,emotion,brightness\nScene 0.jpg,awe,7\nScene 1.jpg,awe,.7\n')
    rows, skipped, _ = collect(tables.read_table, tmp_path/'own.csv', pictures)
    assert [r.attributes for r in rows]==[dict(brightness=.7)] and skipped.counts()=={'off the scale': 1}

@pytest.mark.parametrize('lines, says', [
    (['Scene 0.jpg,1,1,', 'Scene 1.jpg,1,,'], 'line 3: half a label: valence and arousal come together'),
    (['Scene 0.jpg,,,Joy'], "line 2: 'Joy' is none of the eight"), (['Scene 9.jpg,1,1,'], 'line 2: no picture'),
    (['Scene 0.jpg,1,3.5,'], 'line 2: arousal 3.5 is not'), (['torn.png,1,1,'], 'line 2: .*save it again'),
    (['../pictures/Scene 0.jpg,1,1,'], 'leads out of the folder'), (['Scene 0.jpg'], 'line 2: no label'),
    (['Scene 0.jpg,nan,1,'], 'line 2: not a number: valence'), ([',1,1,'], 'line 2: no picture'), ([], 'holds no rows'),
    (['\udcff.jpg,1,1,'], 'line 2: .*not text'), (['Scene 0.jpg,1,1,', 'Scene 1.jpg,'+'9'*200_000], 'field larger')])
def test_labels_stop_at_the_first_wrong_line(pictures, lines, says):
    (pictures/'torn.png').write_bytes(PAINTED[0].image[:60])
    text = '\n'.join(['image,valence,arousal,emotion', *lines, ''])
    (pictures/'labels.csv').write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ValueError, match=f'labels.csv.* {says}'): tables.read_labels(pictures)

def test_labels_are_the_rows_of_a_table(tmp_path, pictures):
    (pictures/'labels.csv').write_text('\ufeff'+OWN, encoding='utf-8')
    rows = tables.read_labels(pictures)
    assert [replace(r, source='') for r in rows]==[replace(r, source='')
                                                   for r in tables.read_table(pictures/'labels.csv')]
    (pictures/'labels.csv').write_text('image,valence,arousal,emotion\nScene 0.jpg,.1,-2.7\n./Scene 0.jpg,,,awe,more\n')
    one, two = tables.read_labels(pictures)  # short and long lines, and a picture that was labelled twice
    assert one.affect==Affect(.1, -2.7) and two.emotion=='awe' and one.name==two.name
    with pytest.raises(FileNotFoundError, match='write one with the columns'): tables.read_labels(tmp_path)

# ---- archives

def archive(path, *members, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', kind) as z:
        for name,data,mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode<<16,kind
            z.writestr(info, data)
    return path

FILE = stat.S_IFREG|0o644
HARMFUL = {
    'up': ('../evil', b'x', FILE), 'up inside': ('a/../../evil', b'x', FILE),
    'absolute': ('/evil-of-a-test', b'x', FILE), 'drive': ('C:/evil', b'x', FILE),
    'backslash': ('..\\evil', b'x', FILE),
    'link': ('a', b'/etc/passwd', stat.S_IFLNK|0o777), 'device': ('a', b'', stat.S_IFCHR|0o644),
    'pipe': ('a', b'', stat.S_IFIFO|0o644), 'bomb': ('a', b'0'*30_000_000, FILE),
}

@pytest.mark.parametrize('name', HARMFUL)
def test_harmful_archives_are_refused_before_anything_is_written(tmp_path, name):
    z = archive(tmp_path/'a.zip', ('fine.txt', b'fine', FILE), HARMFUL[name])
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match='not unpacked'): tables.unpack(z, tmp_path/'out')
    assert sorted(tmp_path.rglob('*'))==before and not Path('/evil-of-a-test').exists()

def test_archives(tmp_path, root):
    z = tmp_path/'emoset.zip'
    with zipfile.ZipFile(z, 'w') as f:
        for o in root.rglob('*'): f.write(o, o.relative_to(root))
    with pytest.raises(ValueError, match='unpack it first'): emoset.open_emoset(z)
    assert len(list(emoset.open_emoset(tables.unpack(z, tmp_path/'out'))))==32
    with pytest.raises(ValueError, match='choose a new folder'): tables.unpack(z, tmp_path/'out')
    with pytest.raises(ValueError, match='would grow'): tables.unpack(z, tmp_path/'small', limit=1000)
    with pytest.raises(ValueError, match='cannot be unpacked'):
        tables.unpack(archive(tmp_path/'b.zip', ('a', b'1', FILE), ('a/b', b'2', FILE)), tmp_path/'twice')
    assert not (tmp_path/'twice').exists()
    with pytest.raises(FileNotFoundError): tables.unpack(tmp_path/'none.zip', tmp_path/'none')
    data, rng = z.read_bytes(), random.Random(4)
    for k in range(40):
        (tmp_path/'c.zip').write_bytes(damage(data, rng))
        with suppress(ValueError):
            tables.unpack(tmp_path/'c.zip', tmp_path/f'out{k}')
            continue
        assert not (tmp_path/f'out{k}').exists()

@pytest.mark.parametrize('kind', (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
def test_a_damaged_archive_leaves_nothing(tmp_path, kind):
    noise = random.Random(0)
    parts = [(f'f{i}', bytes(noise.randrange(100) for _ in range(3000)), FILE) for i in range(4)]
    data = bytearray(archive(tmp_path/'a.zip', *parts, kind=kind).read_bytes())
    for i in range(200): data[len(data)//2+i] ^= noise.randrange(256)
    (tmp_path/'b.zip').write_bytes(data)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match='b.zip cannot be unpacked'): tables.unpack(tmp_path/'b.zip', tmp_path/'out')
    assert sorted(tmp_path.rglob('*'))==before

def test_an_archive_whose_unpacking_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    z = archive(tmp_path/'a.zip', ('a', b'1', FILE), ('b', b'2', FILE))
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(tables.shutil, 'copyfileobj', stop)
        with pytest.raises(KeyboardInterrupt): tables.unpack(z, tmp_path/'out')
    assert sorted(o.name for o in tmp_path.iterdir())==['a.zip']
    (tmp_path/'out.new').mkdir()
    (tmp_path/'out.new/half').write_text('killed by force')
    (tmp_path/'out').mkdir()
    assert sorted(o.name for o in tables.unpack(z, tmp_path/'out').iterdir())==['a', 'b']

def test_a_zip_that_lies_about_its_size(tmp_path):
    z = archive(tmp_path/'a.zip', ('a', b'0'*100_000, FILE))
    data = z.read_bytes()
    z.write_bytes(data.replace(struct.pack('<I', 100_000), struct.pack('<I', 10)))
    with pytest.raises(ValueError, match='cannot be unpacked'): tables.unpack(z, tmp_path/'out')
    assert not (tmp_path/'out').exists()

# ---- writing

def test_write_emoset_takes_any_picture_and_refuses_the_rest(tmp_path):
    p = tmp_path/'x.png'
    p.write_bytes(PAINTED[0].image)
    image, picture = PAINTED[0].image, PAINTED[0].picture
    rows = [Row(o, 'awe', source='x', name=f'{i}.png') for i,o in enumerate((p, str(p), image, picture))]
    rows = collect(emoset.read_emoset, write_emoset(rows, tmp_path/'a'))[0]
    assert {Path(r.image).read_bytes() for r in rows}=={image, png_bytes(picture)}
    for bad,says in ((Row(None, 'awe', name='a.png'), 'no picture'), (Row(p), 'no emotion')):
        with pytest.raises(ValueError, match=says): write_emoset([bad], tmp_path/'b')
    with pytest.raises(ValueError, match='choose 3 or 4'): write_emoset(rows, tmp_path/'c', elements=5)

def test_the_benchmark_writes_what_the_reader_reads(tmp_path):
    script = Path(__file__).parent/'bench'/'emoset_tree.py'
    run = subprocess.run([sys.executable, script, tmp_path/'tree', '--images', '80', '--elements', '3', '--procs', '1',
                          '--read'], capture_output=True, text=True)
    assert run.returncode==0 and '80 rows' in run.stdout and '0 skipped' in run.stdout, run.stdout+run.stderr
    assert len({o.read_bytes() for o in (tmp_path/'tree').rglob('*.jpg')})==80  # no two alike
    assert 'not empty' in subprocess.run([sys.executable, script, tmp_path/'tree', '--images', '9'],
                                         capture_output=True, text=True).stderr
