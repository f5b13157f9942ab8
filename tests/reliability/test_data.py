'''Damaged files of every kind that the data wing reads: what comes out is right or refused, in a sentence with the name

In short with the other tests; EMOFEEDBACK_TORTURE=1 takes 3,000 files, and EMOFEEDBACK_RECORD=FOLDER writes the counts.
'''
import json
import os
import random
import shutil
import time
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_sources import OWN, PAINTED, READERS, check, damage, emotic_mat, parquet, spoil, under, watched

from emofeedback.data import emoset, human, tables
from emofeedback.data.build import BuildConfig, Source, build
from emofeedback.data.dataset import Rows, check_picture, fresh_targets, read_clouds, sha256, splits_of
from emofeedback.data.files import Skipped
from emofeedback.data.lexicon import WARRINER, lexicon_of
from emofeedback.data.prompts import read_prompts
from emofeedback.images import MOST_PIXELS, read_image
from emofeedback.mini.rows import write_emoset, write_picture
from emofeedback.people.ratings import Answer, read_ratings, to_line
from emofeedback.understanding.describe import Cache, captions

LONG = os.environ.get('EMOFEEDBACK_TORTURE')=='1'
FILES = 3000 if LONG else 150

# How each kind is made (folder -> files to damage, without their damage) and read (folder, file -> rows, skipped)

def a_table(name):
    file, text, read = READERS[name]
    def make(d):
        (d/file).write_text(text)
        return [d/file]
    def rows(d, path):
        skipped = Skipped()
        return list(read(path, pictures_of(d), skipped=skipped)), skipped
    return make, rows

def pictures_of(d):
    'Eight pictures, under the names that the tables give them'
    if not (d/'pictures').is_dir():
        for i in range(8):
            write_picture(PAINTED[i].image, d/'pictures/mscoco/images'/f'{i}.jpg')
            write_picture(PAINTED[i].image, d/f'pictures/Scene {i}.jpg')
    return d/'pictures'

def make_labels(d):
    (pictures_of(d)/'labels.csv').write_text(OWN)
    return [d/'pictures/labels.csv']

def make_emoset(d):
    write_emoset(PAINTED[:8], d/'set')
    return sorted((d/'set').rglob('*.json'))

def read_set(d, path):
    skipped = Skipped()
    return list(emoset.read_emoset(d/'set', skipped=skipped)), skipped

def make_mat(d): return [emotic_mat(d/'Annotations.mat')]

def read_mat(d, path):
    skipped = Skipped()
    return list(human.read_emotic(path, pictures_of(d), skipped)), skipped

def make_parquet(d): return [parquet(d/'train.parquet', PAINTED[:6], list(dict.fromkeys(o.emotion for o in PAINTED)))]

def read_parquet(d, path):
    skipped = Skipped()
    return list(emoset.read_emoset_parquet(d, skipped)), skipped

def make_archives(d):
    kinds = dict(stored=zipfile.ZIP_STORED, deflated=zipfile.ZIP_DEFLATED, bzip2=zipfile.ZIP_BZIP2,
                 lzma=zipfile.ZIP_LZMA)
    for name, kind in kinds.items():
        with zipfile.ZipFile(d/f'{name}.zip', 'w', kind) as z:
            for i in range(4): z.writestr(f'image/{i}.png', PAINTED[i].image*2)
    return sorted(d.glob('*.zip'))

def read_archive(d, path):
    out = d/'out'
    shutil.rmtree(out, ignore_errors=True)
    try: tables.unpack(path, out)
    except ValueError:
        assert sorted(o.name for o in d.iterdir() if not o.name.endswith('.zip'))==[], 'something stayed behind'
        raise
    assert all(o.resolve().is_relative_to(out.resolve()) for o in out.rglob('*'))
    return [], ()

def make_pictures(d):
    img = Image.open(BytesIO(PAINTED[0].image)).resize((96, 64))
    for kind in ('png', 'jpeg', 'gif', 'bmp', 'tiff', 'webp'): img.save(d/f'a.{kind}')
    img.save(d/'b.jpeg', progressive=True)
    img.convert('RGBA').save(d/'b.png')
    Image.fromarray(np.asarray(img.convert('L')).astype('uint16')*257).save(d/'c.png')
    Image.fromarray(np.asarray(img.convert('L')).astype('float32')).save(d/'d.tiff')
    return sorted(o for o in d.iterdir())

def read_picture(d, path):
    img = read_image(path)
    assert img.mode=='RGB' and img.width*img.height<=MOST_PIXELS
    if min(img.size)>=8: assert Image.open(BytesIO(check_picture(path.read_bytes()))).size
    return [], ()

def make_captions(d):
    line = dict(key='k', model='m', neutral='a lake', emotional='a gloomy lake', tries=1)
    Cache(d).add([line|dict(name=f'{i}.jpg', key=f'k{i}') for i in range(8)])
    return [d/'captions-0.jsonl']

def read_captions(d, path):
    found = captions(d)
    assert all(isinstance(o, str) for k, pair in found.items() for o in (k, *pair))
    assert all(line['tries']>=-10**9 for line in Cache(d).lines.values())
    return [], ()

def make_ratings(d):
    lines = [to_line(Answer('me', f'{i}.jpg', i/2-2, 1-i/4, 'awe', 2.5)) for i in range(8)]
    (d/'me.jsonl').write_bytes(b''.join(lines))
    return [d/'me.jsonl']

def read_people(d, path):
    table = read_ratings(d)
    values = table[['valence', 'arousal']].to_numpy()
    assert (np.isnan(values)|(abs(values)<=3)).all()
    return [], ()

def make_built(d):
    build(Source('mini', 'x', lambda sk: PAINTED), d/'built', BuildConfig('warriner'), say=str, progress=False)
    return sorted(o for o in (d/'built').rglob('*') if o.suffix=='.arrow' or o.suffix=='.json' and o.stem!='summary'
                  and o.stem!='run')

def read_built(d, path):
    sha256.cache_clear()
    rows = [r for s in splits_of(d/'built') for r in Rows(d/'built', s)]
    for r in rows: assert read_image(r.image).size==(16, 16)
    clouds, _, bounds = read_clouds(d/'built')
    assert all(np.isfinite([*g.mean, *g.sd]).all() and min(g.sd)>=0 for g in clouds.values()) and bounds
    assert all(-3<=x<=3 for epoch in fresh_targets(d/'built', 2) for p in epoch for x in p)
    return rows, ()

def make_lexicon(d):
    lines = [','.join(map(str, ('', w, *numbers))) for w, numbers in WARRINER.items()]
    (d/'own.csv').write_text('\n'.join([',Word,V.Mean.Sum,V.SD.Sum,A.Mean.Sum,A.SD.Sum', *lines]))
    return [d/'own.csv']

def read_lexicon(d, path):
    for g in lexicon_of(str(path)).values():
        assert all(-3<=x<=3 for x in g.mean) and all(0<=x<20 for x in g.sd)
    return [], ()

def make_prompts(d):
    (d/'own.txt').write_text('a lake by a forest\n# no scene\nan old man walking his dog\ncafé at night\n')
    return [d/'own.txt']

def read_scenes(d, path):
    assert all(o and o.isprintable() and len(o)<=200 for o in read_prompts(path))
    return [], ()

KINDS = {name: a_table(name) for name in READERS} | {
    'labels': (make_labels, lambda d, path: (tables.read_labels(path.parent), ())), 'emoset': (make_emoset, read_set),
    'parquet': (make_parquet, read_parquet), 'archive': (make_archives, read_archive),
    'picture': (make_pictures, read_picture), 'captions': (make_captions, read_captions),
    'ratings': (make_ratings, read_people), 'built': (make_built, read_built),
    'lexicon': (make_lexicon, read_lexicon), 'prompts': (make_prompts, read_scenes), 'mat': (make_mat, read_mat)}
SHARE = dict(picture=4, archive=2, built=2, emoset=2, mat=.25) # of the files, where it is not 1; .mat starts a process

def spoiled(path, data, rng) -> bytes:
    'A damaged file; JSON at times with an odd value in the right form'
    if path.suffix!='.json' or rng.random()<.4: return damage(data, rng)
    return json.dumps(spoil(json.loads(data), rng)).encode()

def trial(read, d, path, counts) -> None:
    'One damaged file, read'
    start = time.perf_counter()
    try:
        with watched() as seen: rows, skipped = read(d, path)
        for r in rows: check(r)
        for where, why in getattr(skipped, 'rows', ()): assert where and ':' in why and len(why)<2000
        counts['right'] += 1
    except (ValueError, OSError) as e:
        others = ('the archive', f'{d}/built/') # where the digests are damaged, another file seems to be
        named = any(o in str(e) for o in (path.name, *others))
        counts['refused' if named else f'unnamed: {type(e).__name__} {str(e)[:120]}'] += 1
    except AssertionError as e: counts[f'out of range: {path.name} {str(e)[:200]}'] += 1
    except Exception as e: counts[f'uncaught: {path.name} {type(e).__name__} {str(e)[:120]}'] += 1
    places = Path('/etc'), d.parent/'outside'
    if any(under(o, seen) for o in places): counts[f'outside: {path.name}'] += 1
    counts['slowest'] = max(counts['slowest'], time.perf_counter()-start)

@pytest.fixture(scope='module')
def found():
    'Counts by kind; written down at the end'
    counts = {}
    yield counts
    folder = os.environ.get('EMOFEEDBACK_RECORD')
    if not folder or len(counts)<len(KINDS): return
    def total(word): return sum(n for c in counts.values() for k, n in c.items() if k.startswith(word))
    tried = {kind: sum(n for k, n in c.items() if k!='slowest') for kind, c in counts.items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder)/'data.json').write_text(json.dumps(dict(
        what='damaged files of the data wing', kinds=tried, tried=sum(tried.values()), right=total('right'),
        refused=total('refused'), unnamed=total('unnamed'), uncaught=total('uncaught'),
        out_of_range=total('out of range'), outside=total('outside'),
        slowest_s=round(max(c['slowest'] for c in counts.values()), 2)), indent=1)+'\n')

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', KINDS)
def test_damaged_files_are_read_right_or_refused_by_name(kind, tmp_path, found):
    make, read = KINDS[kind]
    (tmp_path/'d').mkdir()
    (tmp_path/'outside').mkdir()
    files, rng, counts = make(tmp_path/'d'), random.Random(kind), Counter(slowest=0)
    whole = {f: f.read_bytes() for f in files}
    if LONG or kind!='mat': read(tmp_path/'d', files[0]) # before any damage
    unit = FILES/sum(SHARE.get(k, 1) for k in KINDS)
    for _ in range(round(unit*SHARE.get(kind, 1)) or 1):
        path = rng.choice(files)
        path.write_bytes(spoiled(path, whole[path], rng))
        trial(read, tmp_path/'d', path, counts)
        for f in files:
            if f==path or not f.is_file(): f.write_bytes(whole[f])
    found[kind] = counts
    bad = {k: n for k, n in counts.items() if k not in ('right', 'refused', 'slowest')}
    assert not bad and counts['slowest']<(60 if kind=='mat' else 5), counts
