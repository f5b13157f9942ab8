'What happens to a data set when its build is killed, its files are torn, and its rows go into training'
import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emofeedback.cli.main import app
from emofeedback.data.build import ORDER, BuildConfig, RowBuilder, Source, build
from emofeedback.data.dataset import Rows, fresh_targets, is_dataset, splits_of
from emofeedback.data.emoset import read_emoset
from emofeedback.data.files import Skipped
from emofeedback.data.labels import label_row
from emofeedback.data.lexicon import PUBLISHED, classes, published, scale_sd
from emofeedback.mini.rows import mini_rows, write_emoset
from emofeedback.runs import lock_file

command = [sys.executable, '-m', 'emofeedback', 'build-data']
quick = dict(os.environ, OMP_NUM_THREADS='1', TQDM_DISABLE='1', HF_HUB_OFFLINE='1')
def content(d): return {p.relative_to(d).as_posix(): p.read_bytes() for p in Path(d).rglob('*') if p.is_file()}
def silent(source, out, cfg=BuildConfig(), **kw):
    return build(source, out, cfg, say=lambda t: None, progress=False, **kw)
def column(d, name): return [o for s in splits_of(d) for o in Rows(d, s).column(name)]
def skipped(d): return list(csv.reader(open(Path(d)/'skipped.csv', newline='')))[1:]

@pytest.fixture(scope='module')
def scenes(): return list(mini_rows(600, seed=11, size=32))

@pytest.fixture(scope='module')
def tree(scenes, tmp_path_factory):
    d = tmp_path_factory.mktemp('trees')/'EmoSet'
    write_emoset(scenes, d)
    return d

def emoset(tree):
    def read(skipped, split=None): return read_emoset(tree, split and [split], skipped)
    return Source('emoset', str(tree), read, read)

def test_killed_and_resumed_is_the_same_to_the_byte(tree, tmp_path):
    cfg = ['--emoset', str(tree), '--lexicon', 'warriner', '--seed', '3']
    whole = subprocess.run([*command, *cfg, '--out', str(tmp_path/'whole')], env=quick, capture_output=True)
    assert whole.returncode==0
    code = f'''
import time
import emofeedback.data.build as b
from emofeedback.cli.main import app
whole = b.write_shard
def slow(path, records):
    whole(path, records)
    time.sleep(60)
b.write_shard = slow
app({['build-data', *cfg, '--out', str(tmp_path/'cut')]!r})
'''
    p = subprocess.Popen([sys.executable, '-c', code], env=quick, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if list((tmp_path/'cut').rglob('*.arrow')): break
        time.sleep(.05)
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert list((tmp_path/'cut').rglob('*.arrow')) and not is_dataset(tmp_path/'cut')
    r = subprocess.run([*command, *cfg, '--out', str(tmp_path/'cut')], env=quick, capture_output=True, text=True)
    assert r.returncode==0, r.stderr
    assert content(tmp_path/'cut')==content(tmp_path/'whole')

@pytest.mark.parametrize('step', ['write_card', 'seal'])
def test_killed_at_the_very_end(scenes, tmp_path, monkeypatch, step):
    source = Source('mini', 'x', lambda sk: scenes[:60])
    silent(source, tmp_path/'whole')
    def killed(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(f'emofeedback.data.build.{step}', killed)
        with pytest.raises(KeyboardInterrupt): silent(source, tmp_path/'cut')
    silent(source, tmp_path/'cut')
    assert content(tmp_path/'cut')==content(tmp_path/'whole')

def test_killed_at_any_replaced_file(scenes, tmp_path, monkeypatch):
    'Every file comes by `os.replace`: stop at the first, the third, ... and go on each time'
    source, cfg, replaced = Source('mini', 'x', lambda sk: scenes[:60]), BuildConfig(lexicon='nrc',
                                                                                     shard=30), os.replace
    silent(source, tmp_path/'whole', cfg)
    for k in range(0, 40, 2):
        left, out = k, tmp_path/f'cut{k}'
        def killed(a, b):
            nonlocal left
            left -= 1
            if left<0: raise KeyboardInterrupt
            replaced(a, b)
        with monkeypatch.context() as m:
            m.setattr(os, 'replace', killed)
            with suppress(KeyboardInterrupt): silent(source, out, cfg)
        silent(source, out, cfg)
        assert content(out)==content(tmp_path/'whole'), f'killed at file {k}'
        if left>=0: break
    assert 14<k<38 # the last one was not killed

def test_two_processes_do_not_build_in_one_folder(scenes, tmp_path):
    source, out = Source('mini', 'x', lambda sk: scenes[:30]), tmp_path/'d'
    out.mkdir()
    with lock_file(out/'.lock'), pytest.raises(BlockingIOError, match='another process works in'): silent(source, out)
    assert [p.name for p in out.iterdir()]==['.lock']
    silent(source, out)
    assert json.loads((out/'run.json').read_text())['source']=='mini' and not (out/'results.json').exists()

def test_training_needs_no_lexicon_and_a_changed_one_is_another(scenes, tmp_path):
    lexicon, source = tmp_path/'mine.txt', Source('mini', 'x', lambda sk: scenes[:60])
    words = {k: (v, a) for k,(v,_,a,_) in PUBLISHED['nrc'].words.items()}
    def write(words): lexicon.write_text(''.join(f'{k}\t{v}\t{a}\t.5\n' for k,(v,a) in words.items()))
    write(words)
    cfg = BuildConfig(lexicon=f'nrc:{lexicon}', seed=4, sd_scale=.5)
    silent(source, tmp_path/'d', cfg)
    assert str(tmp_path) not in (tmp_path/'d/README.md').read_text()
    write(words|dict(awe=(.5, .5)))
    with pytest.raises(FileExistsError, match='lexicon_digest'): silent(source, tmp_path/'d', cfg)
    lexicon.unlink()
    rows, clouds = [r for r in scenes[:60] if r.split=='train'], scale_sd(published('nrc'), .5)
    wanted = [[label_row(r, clouds, 4, 'clip', epoch).affect for r in rows] for epoch in range(3)]
    assert fresh_targets(tmp_path/'d', 3)==wanted

def test_settings_of_a_source_belong_to_the_run(scenes, tmp_path):
    def source(scale): return Source('table', 'x', lambda sk: scenes[:30], settings=dict(scale=scale))
    silent(source([1, 9]), tmp_path/'d')
    with pytest.raises(FileExistsError, match=r'scale is \[1, 9\], not \[0, 1\]'): silent(source([0, 1]), tmp_path/'d')

def test_ctrl_c_says_that_nothing_is_lost(tree, tmp_path):
    p = subprocess.Popen([*command, '--mini', '40000', '--out', str(tmp_path/'d')], env=quick, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    time.sleep(6)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode==130 and 'same command goes on' in err and 'Traceback' not in err, err

def test_no_picture_in_two_splits_and_splits_as_in_the_source(scenes, tmp_path):
    of = {s: [i for i,r in enumerate(scenes) if r.split==s] for s in ORDER}
    rows = list(scenes)
    # each gets the picture of another row, in a split that is built before its own
    lost = [of['train'][5], of['val'][5], of['train'][6], of['train'][9]]
    for i,j in zip(lost, (of['test'][2], of['test'][2], of['val'][2], of['train'][8])):
        rows[i] = replace(rows[i], image=rows[j].image)
    silent(Source('mini', 'x', lambda sk: rows), tmp_path/'d')
    got = {s: Rows(tmp_path/'d', s) for s in ORDER}
    digests = [set(o.column('digest')) for o in got.values()]
    assert not digests[0]&digests[1] and not digests[0]&digests[2] and not digests[1]&digests[2]
    split = {r.name: r.split for r in rows}
    assert all(split[n]==s for s,o in got.items() for n in o.column('name'))
    assert sum(map(len, got.values()))==len(rows)-4
    assert {w for w,why in skipped(tmp_path/'d') if why.startswith('the same picture')}=={rows[i].name for i in lost}

def test_order_and_company_do_not_change_a_label(scenes, tmp_path):
    cfg = BuildConfig(lexicon='nrc', seed=5)
    silent(Source('mini', 'x', lambda sk: scenes), tmp_path/'a', cfg)
    silent(Source('mini', 'x', lambda sk: scenes[::-3]), tmp_path/'b', cfg)
    a, b = ({n: (v, x) for s in ORDER for n,v,x in zip(*map(Rows(d, s).column, ('name', 'valence', 'arousal')))}
            for d in (tmp_path/'a', tmp_path/'b'))
    assert len(b)>100 and all(a[n]==o for n,o in b.items())

def test_torn_pictures_and_odd_rows_are_listed_and_the_rest_is_read(scenes, tmp_path):
    bad = {1: dict(image=scenes[1].image[:60]), 2: dict(image=b''), 3: dict(image=tmp_path/'missing.png'),
           4: dict(emotion=None, affect=None), 5: dict(name='caf\udce9.png'), 6: dict(image=tmp_path)}
    rows = [replace(r, **bad.get(i, {})) for i,r in enumerate(scenes[:40])]
    silent(Source('mini', 'x', lambda sk: rows), tmp_path/'d')
    kept = set(column(tmp_path/'d', 'name'))
    assert kept=={r.name for i,r in enumerate(rows) if i not in bad}
    assert len([1 for w,why in skipped(tmp_path/'d') if not why.startswith('prompt')])==len(bad)

def test_rows_of_prompts_without_pictures(tmp_path):
    table = tmp_path/'prompt_mapping.csv'
    lines = [f'a dog in park number {i},a happy dog in park number {i},{i/10-1},{1-i/10}' for i in range(20)]
    table.write_text('\n'.join(['Neutral_Prompt,Emotional_Prompt,Arousal,Valence', *lines]))
    r = CliRunner().invoke(app, ['build-data', '--emoticrafter', str(table), '--out', str(tmp_path/'d')])
    assert r.exit_code==0, r.output
    n = json.loads((tmp_path/'d/summary.json').read_text())
    assert sum(s['rows'] for s in n.values())==20 and not sum(s['pictures'] for s in n.values())
    r = CliRunner().invoke(app, ['train-judge', '--rows', str(tmp_path/'d'), '--out', str(tmp_path/'j')])
    assert r.exit_code==1 and 'no row has a picture and a label' in r.output

def test_memory_of_labels_does_not_depend_on_pictures(tmp_path):
    'Pictures of 360 MB go through a build, and never more than a part of them is held'
    code = f'''
import io
import resource
from PIL import Image
from emofeedback.data.build import Source, build
from emofeedback.core import Affect
from emofeedback.data.labels import Row
Image.new('RGB', (820, 820)).save(b := io.BytesIO(), 'BMP')
def row(i): return Row(b.getvalue()[:-9]+b'%09d' % i, 'awe', Affect(0, 0), source='x', name=str(i))
def rows(sk): return (row(i) for i in range(180))
import datasets
import matplotlib.figure
import py3langid
from emofeedback.data.card import write_card
rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build(Source('x', 'x', rows), {str(tmp_path/'d')!r}, say=lambda t: None, progress=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-rest)/1024)
'''
    r = subprocess.run([sys.executable, '-c', code], env=quick, capture_output=True, text=True)
    assert r.returncode==0, r.stderr
    assert sum(p.stat().st_size for p in (tmp_path/'d').rglob('*.arrow'))>350e6
    assert float(r.stdout)<230, r.stdout

@pytest.mark.parametrize('args, says', [
    ([], 'no source: give one of'), (['--mini', '0'], '--mini 0'),
    (['--mini', '9', '--bounds', 'cut'], "'clip' or 'truncate'"),
    (['--mini', '9', '--sd-scale', '-1'], 'factor from 0'),
    (['--mini', '9', '--lexicon', 'nowhere.csv'], 'nowhere.csv'), (['--emoset', 'nowhere'], 'nothing at nowhere'),
    (['--emoset', '.'], 'pass the folder'), (['--mini', '9', '--limit', '0'], 'limit'),
    (['--mini', '9', '--endpoint', 'http://localhost:1/v1'], '--describe'),
    (['--mini', '9', '--describe', 'no/such-model'], 'no/such-model'), (['--emotic', '.'], '--pictures'),
    (['--mini', '9', '--pictures', '.'], '--pictures does not go')])
def test_mistakes_get_one_sentence(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    r = CliRunner().invoke(app, ['build-data', '--out', 'd', *args])
    assert r.exit_code==1 and says in r.output and 'Traceback' not in r.output, r.output
    assert not (tmp_path/'d/dataset_dict.json').exists()

def test_a_folder_with_other_settings_is_left_alone(scenes, tmp_path):
    silent(Source('mini', 'x', lambda sk: scenes[:30]), tmp_path/'d')
    before = content(tmp_path/'d')
    with pytest.raises(FileExistsError, match='seed is 0, not 1'):
        silent(Source('mini', 'x', lambda sk: scenes[:30]), tmp_path/'d', BuildConfig(seed=1))
    assert content(tmp_path/'d')==before
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/thesis.tex').write_text('x')
    with pytest.raises(FileExistsError, match='other files'):
        silent(Source('mini', 'x', lambda sk: scenes[:30]), tmp_path/'mine')

def test_prompts_of_a_language_model_come_first_and_are_filtered(scenes, tmp_path):
    def describe(rows, cache, progress, skipped, total):
        found = {r.name: (f'a hill with {i} trees', f'a lovely hill with {i} trees') for i,r in enumerate(rows)}
        return found|{next(iter(found)): ('a gloomy hill', 'x y')}
    describe.name = 'test'
    silent(Source('mini', 'x', lambda sk: scenes[:50]), tmp_path/'d', describe=describe)
    said = column(tmp_path/'d', 'neutral')
    assert len(said)==50 and said.count('')==1 and all(p.startswith('a hill with') for p in said if p)
    assert any('names a feeling: gloomy' in why for _,why in skipped(tmp_path/'d'))

def test_a_prompt_is_used_once(scenes):
    make = RowBuilder(BuildConfig())
    made = [make(replace(scenes[i], neutral='a dog on a beach', emotional='')) for i in range(3)]
    assert [bool(o['neutral']) for o in made]==[True, False, False] and make.skipped.counts()=={'prompt said before': 2}

def test_a_tree_with_one_split_and_a_parquet_form_give_the_same_rows(scenes, tmp_path):
    from datasets import ClassLabel, Dataset, Features, Image, Value
    train = [r for r in scenes if r.split=='train'][:40]
    write_emoset(train, tmp_path/'tree')
    for s in ('val', 'test'): (tmp_path/f'tree/{s}.json').unlink()
    spec = Features(image=Image(), emotion=ClassLabel(names=sorted({r.emotion for r in train})),
                    image_id=Value('string'))
    rows = [dict(image=dict(bytes=r.image, path=None), emotion=r.emotion, image_id=r.name) for r in train]
    Dataset.from_list(rows, features=spec).to_parquet(tmp_path/'pq/train-00000-of-00001.parquet')
    for d in ('tree', 'pq'):
        args = ['build-data', '--emoset', str(tmp_path/d), '--lexicon', 'warriner', '--out', str(tmp_path/f'{d}-out')]
        r = CliRunner().invoke(app, args)
        assert r.exit_code==0, r.output
    a, b = (Rows(tmp_path/f'{d}-out') for d in ('tree', 'pq'))
    assert sorted(a.column('digest'))==sorted(b.column('digest')) and len(a)==40
    assert splits_of(tmp_path/'pq-out')==['train']
    def label(o): return dict(zip(o.column('digest'), zip(o.column('emotion'), o.column('valence'))))
    assert label(a)==label(b)

def test_two_processes_describe_as_one(tmp_path):
    '`accelerate launch` starts the whole command twice; only the descriptions are shared out'
    args = ['build-data', '--mini', '40', '--describe', 'mini', '--out']
    launch = [str(Path(sys.executable).parent/'accelerate'), 'launch', '--multi_gpu', '--num_processes', '2',
              '--module', 'emofeedback']
    for how,d in ((launch, 'two'), ([sys.executable, '-m', 'emofeedback'], 'one')):
        r = subprocess.run([*how, *args, str(tmp_path/d)], env=quick, capture_output=True, text=True)
        assert r.returncode==0, r.stderr
    assert sorted(p.name for p in (tmp_path/'two/prompts').iterdir())==['captions-0.jsonl', 'captions-1.jsonl']
    def same(d): return {k: v for k,v in content(d).items() if not k.startswith('prompts')}
    assert same(tmp_path/'two')==same(tmp_path/'one')

def test_a_wrong_scale_does_not_pass_in_silence(scenes, tmp_path):
    for i in range(30): (tmp_path/f'{i}.png').write_bytes(scenes[i].image)
    (tmp_path/'my.csv').write_text('image,valence,arousal\n'+''.join(f'{i}.png,{i%9+1},{9-i%9}\n' for i in range(30)))
    args = ['build-data', '--table', str(tmp_path/'my.csv'), '--out']
    r = CliRunner().invoke(app, [*args, str(tmp_path/'wrong')])
    assert r.exit_code==1 and 'off the scale' in r.output or 'right --scale' in r.output, r.output
    r = CliRunner().invoke(app, [*args, str(tmp_path/'right'), '--scale', '1', '9'])
    assert r.exit_code==0 and 'No row has a prompt' in r.output, r.output
    assert 'left out' not in r.output and 'perfect judge' not in r.output, r.output

def test_each_setting_changes_what_it_says(scenes, tmp_path):
    def built(name, **kw):
        silent(Source('mini', 'x', lambda sk: scenes), tmp_path/name, BuildConfig(**kw))
        names, v, a = (column(tmp_path/name, k) for k in ('name', 'valence', 'arousal'))
        return dict(zip(names, zip(v, a)))
    of, nrc = {r.name: r for r in scenes}, published('nrc')
    for name,kw,clouds,more in (('half', dict(lexicon='nrc', sd_scale=.5), scale_sd(nrc, .5), {}),
                                ('cut', dict(lexicon='nrc', bounds='truncate'), nrc, dict(bounds='truncate')),
                                ('near', dict(lexicon='russell-mehrabian', near=True),
                                 classes(published('russell-mehrabian'), near=True), {})):
        got = built(name, **kw)
        wanted = {n: tuple(label_row(of[n], clouds, 0, **more).affect) for n in got}
        assert len(got)==len(scenes) and got==wanted, name
    built('few', limit=7)
    assert [len(Rows(tmp_path/'few', s)) for s in ORDER]==[7, 7, 7]

def test_a_finished_set_is_told_and_not_made_again(scenes, tmp_path):
    def describe(rows, cache, progress, skipped, total):
        asked.append(1)
        return {r.name: ('a hill', '') for r in rows}
    describe.name, asked, said = 'test', [], []
    source = Source('mini', 'x', lambda sk: scenes[:40])
    for cfg,note in ((BuildConfig(), 'who sees nothing else'), (BuildConfig(lexicon='nrc'), 'the noise floor')):
        out = tmp_path/note
        for _ in range(2): build(source, out, cfg, describe, said.append, progress=False)
        assert asked==[1] and any(note in o for o in said) and note in (out/'README.md').read_text()
        asked.clear()
        said.clear()

def test_a_list_of_what_was_skipped_is_no_program(tmp_path):
    'A spreadsheet runs cells that begin so'
    skipped = Skipped()
    for where in ('=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', ' =1', 'image/a.jpg', ''): skipped(where, '=1: why')
    skipped.write(tmp_path/'skipped.csv')
    with open(tmp_path/'skipped.csv', newline='') as f: cells = [c for line in csv.reader(f) for c in line]
    assert not [c for c in cells if c.lstrip()[:1] in '=+-@' and c.strip()] and 'image/a.jpg' in cells
