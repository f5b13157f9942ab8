'Ratings under stress: torn files, odd names, writers at once, full disks, junk; agreement; the card in a real browser'
import base64
import errno
import json
import multiprocessing
import os
import random
import re
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import opened
from emofeedback.affect import EMOTIONS, nearest_emotion
from emofeedback.core import Affect
from emofeedback.data.files import Skipped
from emofeedback.data.labels import Row, label_rows
from emofeedback.data.lexicon import MIKELS
from emofeedback.people import ratings as R
from emofeedback.people.agreement import AXES, affect_table, alpha, compare_labels, consensus, decompose, human_rows
from emofeedback.people.agreement import icc, rater_agreement, rater_table, simulate_raters
from emofeedback.people.ratings import Answer, RatingSession, answers_in, from_line, read_ratings, to_line
from emofeedback.people.widget import RatingTool

def pictures(names): return [Row(Image.new('RGB', (8, 8), (9*i%256, 40, 90)), name=n) for i,n in enumerate(names)]

ROWS = pictures([f'image/{i}.png' for i in range(6)])
ODD = ['a b.png', 'ünïcödé/写真.jpg', '../up.jpg', 'C:\\x\\y.jpg', 'line\nbreak', 'tab\t"quote"', '\udcff\udcfe.jpg',
       '🌊', '{"rater": 1}', 'x'*3000, '\0nul', '\u2028']

def answer(s, k=0):
    'Answer the current picture; its name'
    name = s.current.name
    s.rate((k%13-6)/2, (k%7-3)/1., EMOTIONS[k%8], seconds=k)
    return name

# ---- sessions

def test_everything_survives_a_restart_at_every_step(tmp_path):
    rng, seen = random.Random(0), []
    for k in range(1, 121):
        s = RatingSession(ROWS, tmp_path, 'Ann') # switched off and on before each step
        assert s.done==len(seen) and (s.current is None)==(len(seen)==len(ROWS))
        if seen and (s.current is None or rng.random()<.45):
            name, said = seen.pop()
            s.undo()
            assert s.current.name==name
            assert s.draft.skipped if said is None else (s.draft.valence, s.draft.emotion)==said
        elif rng.random()<.2:
            seen.append((s.current.name, None))
            s.skip()
        else:
            name = answer(s, k)
            seen.append((name, (s.answers[name].valence, s.answers[name].emotion)))
    table = read_ratings(tmp_path)
    assert list(table.name)==[n for n,_ in seen]
    assert len(answers_in(s.path))==120 # every line is still there

def test_nothing_to_undo_nothing_to_rate(tmp_path):
    s = RatingSession(ROWS[:1], tmp_path, 'Ann')
    with pytest.raises(ValueError, match='no answer to take back'): s.undo()
    answer(s)
    with pytest.raises(ValueError, match='all pictures are answered'): s.skip()
    with pytest.raises(ValueError, match='all pictures are answered'): s.rate(0, 0, 'awe')
    assert len(answers_in(s.path))==1 and RatingSession([], tmp_path, 'Bo').current is None

UNSAVABLE = [dict(valence=None), dict(arousal='1'), dict(valence=float('nan')), dict(valence=3.01), dict(arousal=-9e99),
             dict(emotion='joy'), dict(emotion=7), dict(emotion=None), dict(seconds=-1), dict(seconds=float('inf')),
             dict(valence=True)]

@pytest.mark.parametrize('bad', UNSAVABLE)
def test_what_cannot_be_saved_changes_nothing(tmp_path, bad):
    s = RatingSession(ROWS, tmp_path, 'Ann')
    first = s.current.name
    with pytest.raises((ValueError, TypeError)): s.rate(**dict(valence=0, arousal=0, emotion='awe', seconds=1.)|bad)
    assert s.current.name==first and s.path.read_bytes()==b''

def test_two_raters_side_by_side(tmp_path):
    for where in (tmp_path/'folder', tmp_path/'shared.jsonl'):
        a, b = (RatingSession(ROWS, where, who) for who in ('Ann', 'Bo'))
        assert list(a.rows)!=list(b.rows) and set(a.rows)==set(b.rows)
        for k in range(6):
            answer(a, k)
            answer(b, k+1)
        a.undo()
        again = [RatingSession(ROWS, where, who) for who in ('Ann', 'Bo')]
        assert [o.done for o in (a, b, *again)]==[5, 6, 5, 6]
        assert read_ratings(where).rater.value_counts().to_dict()==dict(Bo=6, Ann=5)
    assert len(list((tmp_path/'folder').iterdir()))==2

def test_new_pictures_do_not_lose_old_answers(tmp_path):
    s = RatingSession(ROWS[:3], tmp_path, 'Ann')
    while s.current: answer(s)
    more = RatingSession(ROWS, tmp_path, 'Ann')
    assert more.done==3 and len(more)==6
    fewer = RatingSession(ROWS[3:], tmp_path, 'Ann') # answers to other pictures are in the file and not in the way
    assert fewer.done==0
    with pytest.raises(ValueError, match='no answer'): fewer.undo()

def test_pictures_need_names(tmp_path):
    img = Image.new('RGB', (4, 4))
    for rows in ([Row(img)], [Row(img, name='a'), Row(img, name='a')]):
        with pytest.raises(ValueError, match='name of its own'): RatingSession(rows, tmp_path, 'Ann')

# ---- files

def test_torn_at_every_byte(tmp_path):
    s = RatingSession(pictures(['é.png', 'b', 'c', 'd']), tmp_path, 'Zoë')
    names = [answer(s, k) for k in range(3)]
    whole = s.path.read_bytes()
    ends = [i+1 for i,c in enumerate(whole) if c==10]
    near = {e+d for e in [0, *ends] for d in (-2, -1, 0, 1) if 0<=e+d<=len(whole)}
    for cut in sorted({*range(0, len(whole)+1, 7), *near}):
        s.path.write_bytes(whole[:cut])
        again = RatingSession(list(s.rows.values()), tmp_path, 'Zoë')
        kept = sum(e-1<=cut for e in ends) # a line is whole even without its line break
        assert again.done==kept
        assert s.path.read_bytes()==whole[:cut] # opening repairs nothing and loses nothing
        new = answer(again, 9)
        assert s.path.read_bytes().startswith(whole[:cut])
        table = read_ratings(tmp_path)
        assert list(table.name)==names[:kept]+[new]
        assert table.attrs['broken']==int(cut>0 and not {cut, cut+1}&set(ends))

def rate_for_ever(path, who):
    while True:
        s = RatingSession(ROWS, path, who)
        while s.current: answer(s, s.turn)
        for _ in ROWS: s.undo()

def test_killed_while_writing(tmp_path):
    path, context = tmp_path/'all.jsonl', multiprocessing.get_context('fork')
    lines = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for wait in (.1, .17, .23):
            writers = [context.Process(target=rate_for_ever, args=(path, w)) for w in ('Ann', 'Bo', 'Cy')]
            for w in writers: w.start()
            time.sleep(wait)
            for w in writers:
                w.kill()
                w.join()
            broken = Skipped()
            now = len(answers_in(path, broken)) if path.exists() else 0
            assert now>=lines and len(broken)<=9 # each kill may tear one line
            lines = now
            assert RatingSession(ROWS, path, 'Ann').done<=6
    assert lines>20

def write_many(path, who):
    for k in range(8):
        s = RatingSession(ROWS, path, who)
        while s.current: answer(s, k)
        for _ in ROWS: s.undo()

def test_four_writers_one_file(tmp_path):
    path, context = tmp_path/'all.jsonl', multiprocessing.get_context('fork')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        writers = [context.Process(target=write_many, args=(path, f'rater {i}')) for i in range(4)]
        for w in writers: w.start()
        for w in writers: w.join()
    broken = Skipped()
    assert len(answers_in(path, broken))==4*8*12 and not broken

def test_full_disk(tmp_path, monkeypatch):
    s = RatingSession(ROWS, tmp_path, 'Ann')
    tool, first = RatingTool(s), s.current.name
    def full(fd): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(R.os, 'fsync', full)
        said = dict(do='save', turn=s.turn, valence=1, arousal=1, emotion='awe', seconds=1)
        tool.heard(None, said)
        assert 'No space left' in tool.card['note'] and s.current.name==first
    tool.heard(None, said)
    assert s.current.name!=first and read_ratings(tmp_path).name.tolist()==[first]

def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    for where in (tmp_path/'file', tmp_path/'file/deeper'):
        with pytest.raises(OSError, match='answers cannot be saved there'): RatingSession(ROWS, where, 'Ann')
    (tmp_path/'dir.jsonl').mkdir()
    with pytest.raises(IsADirectoryError, match='choose a folder'): RatingSession(ROWS, tmp_path/'dir.jsonl', 'Ann')
    def refuse(path, *args, **kw): raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    monkeypatch.setattr(R, 'open', refuse, raising=False)
    with pytest.raises(PermissionError, match='Permission denied: answers cannot be saved there'):
        RatingSession(ROWS, tmp_path, 'Ann')

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='root may write everywhere')
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match='choose a folder'): RatingSession(ROWS, tmp_path, 'Ann')

NAMES = ['../../etc/passwd', 'a/b', '/abs', 'C:\\x', '..', '.', '.hidden', 'CON', '李雷', 'Ανν', "Robert'); DROP", '🙂',
         'Ann', 'ann', 'a'*100, '-', 'x.jsonl']

@pytest.mark.parametrize('who', NAMES)
def test_raters_of_any_name_stay_in_the_folder(tmp_path, who):
    folder = tmp_path/'in'
    folder.mkdir()
    s = RatingSession(ROWS, folder, who)
    answer(s)
    assert [p.name for p in tmp_path.iterdir()]==['in'] and list(folder.iterdir())==[s.path] and s.path.name.isascii()
    assert read_ratings(folder).rater.tolist()==[who] and RatingSession(ROWS, folder, f' {who} ').done==1

@pytest.mark.parametrize('who', ['', '  ', '\n', 'a\nb', 'a\0', '\ud800', 'x'*101, None, 7])
def test_no_name_no_rating(tmp_path, who):
    with pytest.raises(ValueError, match='say who rates'): RatingSession(ROWS, tmp_path, who)
    assert not list(tmp_path.iterdir())

def test_pictures_of_any_name(tmp_path):
    s = RatingSession(pictures(ODD), tmp_path, 'Ann')
    while s.current: answer(s)
    assert set(read_ratings(tmp_path).name)==set(ODD) and s.path.read_bytes().isascii()
    assert RatingSession(pictures(ODD), tmp_path, 'Ann').done==len(ODD)

# ---- reading

SPICE = [b'\0', b'\xff', b'\xef\xbb\xbf', b'{', b'}', b'"', b'\\', b'[', b'NaN', b'Infinity', b'1e999', b'-', b'9'*400,
         b'true', b'null', b'\n', b'\r', b',', b':', b'\\ud800', b'['*3000]

def test_fuzzed_files_are_read(tmp_path):
    rng, f, when = random.Random(0), tmp_path/'log.jsonl', '2026-11-22T00:00:00+00:00'
    def said(i): return Answer(f'r{i%3}', f'{i}.png', i%6-3, 3-i%6, EMOTIONS[i%8], i, when, undone=i%5==4)
    good = b''.join(to_line(said(i)) for i in range(8))
    for _ in range(400):
        s = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            i = rng.randrange(len(s))
            s[i:i+rng.choice([0, 1, 1, 9])] = rng.choice(SPICE)
        f.write_bytes(s)
        broken = Skipped()
        t = read_ratings(f, skipped=broken)
        lines = [o for o in bytes(s).split(b'\n') if o.strip()]
        assert len(broken)==t.attrs['broken'] and len(answers_in(f))+len(broken)==len(lines)
        given = t[t.valence.notna()]
        assert given[AXES].abs().le(3).all(axis=None) and (t.seconds.dropna()>=0).all()
        assert not t.duplicated(['rater', 'name']).any()
        assert all(re.match('log.jsonl, line [0-9]+$', w) for w,_ in broken.rows)
        RatingSession(ROWS, f, 'r0')

def said_of_x(**other):
    'A line of A about the picture x, as bytes'
    return json.dumps(dict(rater='A', name='x')|other).encode()

NO_ANSWERS = [b'7', b'null', b'[]', b'{}', b'{"rater": "A"}', said_of_x(name=''), said_of_x(),
              said_of_x(valence=1, arousal=True), said_of_x(valence=1, arousal=1, time=3),
              said_of_x(name=['x'], valence=1, arousal=1), said_of_x(valence=1, arousal=1, skipped=0),
              said_of_x(valence=1, arousal=1, emotion=[]), said_of_x(valence=1, arousal=1).replace(b'1}', b'1e9999}'),
              said_of_x().decode().encode('utf-16'), b'['*100_000]

@pytest.mark.parametrize('line', NO_ANSWERS)
def test_lines_that_are_no_answers(line):
    with pytest.raises(ValueError): from_line(line)

def test_lines_of_later_versions_are_read(tmp_path):
    (tmp_path/'a.jsonl').write_bytes(said_of_x(valence=1, arousal=-1, dominance=2)+b'\r\n')
    assert read_ratings(tmp_path)[AXES].to_numpy().tolist()==[[1, -1]]

def test_where_there_is_nothing_to_read(tmp_path):
    for p in (tmp_path, tmp_path/'none.jsonl'):
        with pytest.raises(FileNotFoundError, match='no answers at'): read_ratings(p)
    RatingSession(ROWS, tmp_path, 'Ann')
    table = read_ratings(tmp_path)
    assert table.empty and list(table.columns)==['rater', 'name', 'valence', 'arousal', 'emotion', 'seconds']

# ---- the card, without a browser

JUNK = [{}, dict(do='dance', turn=0), dict(do='save', turn=0), dict(do='undo', turn=0), dict(do=['save'], turn=0),
        dict(do='save', turn=0, valence='x', arousal=[], emotion={}, seconds='soon'),
        dict(do='save', turn=99, valence=1, arousal=1, emotion='awe', seconds=1),
        dict(do='save', turn=0, valence=1, arousal=1, emotion='awe', seconds=-5)]

@pytest.mark.parametrize('said', JUNK)
def test_junk_from_the_browser(tmp_path, said):
    tool = RatingTool(RatingSession(ROWS, tmp_path, 'Ann'))
    tool.heard(None, said)
    assert tool.card['done']==0 and tool.session.path.read_bytes()==b''

def test_a_picture_that_cannot_be_shown(tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'no picture')
    rows = [Row(tmp_path/f'{k}.jpg', name=k) for k in ('bad', 'gone')]
    tool = RatingTool(RatingSession(rows, tmp_path/'answers', 'Ann'))
    for _ in range(2):
        assert 'cannot be shown' in tool.card['note'] and tool.card['picture']==''
        tool.heard(None, dict(do='skip', turn=tool.card['turn'], seconds=1.))
    assert tool.card['finished'] and 'Thank you' in tool.card['note']

def test_the_card_is_json_and_shows_no_name(tmp_path):
    tool = RatingTool(RatingSession(pictures(['image/awe/awe_1.png', 'x']), tmp_path, '<b>Ann</b>'))
    text = json.dumps({k: v for k,v in tool.card.items() if k!='picture'})
    assert 'awe_1' not in text and '<b>Ann' not in tool.still() and 'text/html' in tool._repr_mimebundle_()[0]

# ---- agreement

SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
NONE = np.nan
OBSERVERS = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
                      [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
                      [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
                      [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE]]).T

def test_published_examples():
    r = icc(SHROUT)
    assert (round(r.single, 2), round(r.average, 2))==(.29, .62)
    assert (round(alpha(OBSERVERS, words=True), 3), round(alpha(OBSERVERS), 3))==(.743, .849)
    letters = pd.DataFrame(OBSERVERS).map(lambda x: None if np.isnan(x) else 'abcde'[int(x)-1])
    assert alpha(letters, words=True)==pytest.approx(alpha(OBSERVERS, words=True))

def test_alpha_is_the_packages():
    import krippendorff
    rng = np.random.default_rng(0)
    for _ in range(40):
        x = rng.integers(0, 5, (rng.integers(3, 20), rng.integers(2, 6))).astype(float)
        x[rng.random(x.shape)<.3] = np.nan
        counted = x[(~np.isnan(x)).sum(1)>1]
        if len(np.unique(counted[~np.isnan(counted)]))<2: continue
        for words,level in ((True, 'nominal'), (False, 'interval')):
            assert alpha(x, words)==pytest.approx(krippendorff.alpha(x.T, level_of_measurement=level))

def test_agreement_at_its_ends():
    rng, same = np.random.default_rng(0), np.repeat(np.arange(20.)[:,None], 3, 1)
    assert alpha(same)==1 and alpha(same, words=True)==1 and icc(same+rng.normal(size=(20, 3))*1e-6).single>.999
    noise = rng.normal(size=(2000, 3))
    assert abs(alpha(noise))<.05 and abs(icc(noise).single)<.05
    assert np.isnan(alpha(np.ones((4, 2)))) and np.isnan(alpha(np.full((4, 2), np.nan)))
    assert np.isnan(alpha([['a', 'a'], ['a', None]], words=True))
    with pytest.raises(ValueError, match='use `alpha`'): icc([[1, np.nan], [np.nan, 2]])

def truth(n, seed=0):
    rng = np.random.default_rng(seed)
    p, names = rng.uniform(-1.8, 1.8, (n, 2)), pd.Index([f'{i}.png' for i in range(n)], name='name')
    return pd.DataFrame(p, names, AXES).assign(emotion=[nearest_emotion(Affect(*x)) for x in p])

def test_bias_and_noise_come_back():
    t, bias = truth(2000), np.array([[.4, -.2], [-.3, .1], [0, 0]])
    found = rater_table(simulate_raters(t, 3, bias, noise=.3, seed=1), t)
    z = (found[['v_bias', 'a_bias']].to_numpy()-bias)/found[['v_se', 'a_se']].to_numpy()
    assert abs(z).max()<3.5
    squeezed = rater_table(simulate_raters(t, 2, noise=.3, compress=[[1], [.5]], seed=2), t)
    assert squeezed.v_sd.iloc[1]<.65*squeezed.v_sd.iloc[0]
    raters = [simulate_raters(t.head(150), 4, noise=s) for s in (.2, .6, 1.2, 2.4)]
    falling = [rater_agreement(x, draws=20).alpha for x in raters]
    assert all((a>b).all() for a,b in zip(falling, falling[1:]))

def test_tables_with_holes():
    t = truth(60)
    x = simulate_raters(t, 4, missing=.4, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        a = rater_agreement(x, draws=30)
        assert a.loc['valence', 'complete']<60 and a.loc['valence', 'alpha']>.6
        assert (consensus(x, 'median').n<=4).all() and (consensus(x, at_least=3).n>=3).all()
        assert rater_table(x).answers.sum()==len(x)
    with pytest.raises(ValueError, match="use 'mean' or 'median'"): consensus(x, 'mode')
    wordless = consensus(x.assign(emotion=None))
    assert wordless.emotion.isna().all() and wordless.share.isna().all()
    rows = [Row('a.png', 'awe', name=k) for k in t.index]
    assert all(r.emotion=='awe' and r.affect for r in human_rows(rows, wordless))

def test_tie_of_words():
    words = ['fear', 'awe', 'fear', 'awe']
    x = pd.DataFrame(dict(rater=list('abcd'), name='p', valence=0., arousal=0., emotion=words, seconds=1.))
    assert consensus(x).loc['p', ['emotion', 'share', 'n']].tolist()==['awe', .5, 4]

def test_parts_sum_to_the_whole():
    t = truth(150)
    rows = label_rows([Row('x.png', e, name=k) for k,e in t.emotion.items()], MIKELS)
    x = simulate_raters(t, 3, [[.3], [0], [-.1]], missing=.2, seed=5)
    read = t[AXES]+np.random.default_rng(0).normal(size=(150, 2))*.4
    read.iloc[:7] = np.nan # unreadable
    read = read.iloc[:140].sample(frac=1, random_state=0) # some missing, in another order
    p = decompose(read, x, rows, MIKELS)
    for side,n in (('drawn labels', 3), ('people', 4)):
        assert np.allclose(p.loc[side].iloc[:n].sum(), p.loc[(side, 'total')])
    c = compare_labels(read, x, rows, MIKELS, draws=50)
    common = [k for k in t.index if k in read.index and k in set(x.name)]
    labels = affect_table(rows)
    miss = (read-labels[AXES]).loc[common]
    assert np.isclose(c.loc['judge, drawn labels', 'v'], miss.valence.abs().mean())
    assert np.isclose(p.loc[('drawn labels', 'total'), 'arousal'], (miss.arousal**2).mean())
    assert (c.v_low<=c.v).all() and (c.v<=c.v_high).all() and c.loc['judge, people', 'n']==len(common)-7
    with pytest.raises(ValueError, match='compare the names'):
        compare_labels(read.rename(index=str.upper), x, rows, MIKELS)
    alone = compare_labels(read, x[x.rater=='simulated 1'], rows, MIKELS, draws=20)
    assert np.isnan(alone.loc['one rater, the other raters', 'v']) and alone.loc['judge, people', 'v']>0

# ---- the card in a real browser, driven by the DevTools protocol

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with opened(tmp_path_factory.mktemp('chromium')) as b: yield b

def show(browser, tool):
    "The card of a tool on an empty page, with the least that a widget's model can be"
    module = base64.b64encode(tool._esm.encode()).decode()
    browser.js("document.documentElement.innerHTML = '<head><style></style></head><body></body>'")
    browser.js(f"document.querySelector('style').textContent = {json.dumps(tool._css)}")
    browser.js(f'''(async () => {{
        window.sent = []; window.heard = {{}}; window.state = {{card: {json.dumps(tool.card)}}}
        window.model = {{get: k => state[k], send: m => sent.push(m),
                         on: (k, f) => heard[k] = f, off: k => delete heard[k]}}
        const module = await import('data:text/javascript;base64,{module}')
        window.stop = module.default.render({{model, el: document.body}}) }})()''')

def exchange(browser, tool):
    'What was sent goes to Python, and its answer back, as Jupyter would carry it'
    sent = browser.js('sent.splice(0)')
    for m in sent: tool.heard(None, m)
    browser.js(f'state.card = {json.dumps(tool.card)}')
    browser.js("heard['change:card']()")
    return sent

def shown(browser):
    'What the card says'
    return browser.js('''(one => ({
        where: one('.er-where').textContent, note: one('.er-note').textContent, count: one('.er-count').textContent,
        words: [...document.querySelectorAll('[aria-pressed=true]')].map(o => o.lastChild.textContent),
        mark: one('.er-mark').style.display!='none'}))(s => document.querySelector(s))''')

def keys(browser, *names):
    for k in names: browser.key(k)

def expected(where, note, count, *words, mark=True):
    return dict(where=where, note=note, count=f'Ann: {count}', words=list(words), mark=mark)

def test_browser_mouse_and_keys(browser, tmp_path):
    tool = RatingTool(RatingSession(ROWS[:3], tmp_path, 'Ann'))
    show(browser, tool)
    assert shown(browser)==expected('Click on the plane', '', 'picture 1 of 3', mark=False)
    browser.click(*browser.at(1.5, -1))
    assert shown(browser)['where']=='valence +1.50, arousal \u22121.00'
    for kind,point in (('Pressed', (1.5, -1)), ('Moved', (0, 0)), ('Moved', (9, 2)), ('Released', (9, 2))):
        browser.mouse(kind, *browser.at(*point))
    assert shown(browser)['where']=='valence +3.00, arousal +2.00' # dragged over the edge: it stops there
    keys(browser, 'ArrowRight', 'ArrowLeft', 'ArrowDown', '8', '8', '2')
    assert shown(browser)==expected('valence +2.75, arousal +1.75', '', 'picture 1 of 3', 'awe')
    keys(browser, 'Enter', 'Enter', 's') # while Python has not answered, nothing else is sent
    said, = exchange(browser, tool)
    assert said.pop('seconds')>0 and said==dict(do='save', valence=2.75, arousal=1.75, emotion='awe', turn=0)
    assert shown(browser)['count']=='Ann: picture 2 of 3' and not shown(browser)['mark']
    browser.key('Enter')
    assert 'Click on the plane first' in shown(browser)['note'] and not exchange(browser, tool)
    browser.press('.er-words button:nth-of-type(7)')
    browser.click(*browser.at(-2, 1))
    browser.press('.er-save')
    assert exchange(browser, tool)[0]['emotion']=='fear'
    browser.key('u')
    exchange(browser, tool)
    assert shown(browser)==expected('valence \u22122.00, arousal +1.00', '', 'picture 2 of 3', 'fear')
    for k in ('s', 's'):
        browser.key(k)
        exchange(browser, tool)
    assert shown(browser)['count']=='Ann: all 3 answered' and tool.card['finished']
    browser.key('u') # the keys work at the end as well
    exchange(browser, tool)
    assert shown(browser)['count']=='Ann: picture 3 of 3'
    assert read_ratings(tmp_path)[AXES].to_numpy().tolist()[0]==[2.75, 1.75]

def test_browser_refusals_are_shown(browser, tmp_path):
    tool = RatingTool(RatingSession(ROWS, tmp_path, 'Ann'))
    show(browser, tool)
    browser.press('.er-picture')
    keys(browser, 'ArrowUp', 'Enter')
    exchange(browser, tool)
    assert shown(browser)['note'].startswith('Not saved: choose the word')
    assert shown(browser)['where']=='valence 0.00, arousal +0.25' # the draft stands
    browser.key('Enter')
    assert len(exchange(browser, tool))==1 # refused again, and still not stuck
    browser.key('1')
    assert shown(browser)['note']==''
    browser.js('window.later = setTimeout')
    browser.js('window.setTimeout = (f, t) => later(f, t/100)') # eight seconds become .08
    browser.key('Enter')
    browser.until(lambda: 'No answer from Python' in shown(browser)['note'])
    browser.js('window.setTimeout = later')
    browser.key('Enter') # the kernel is back: both messages arrive, one picture is answered
    assert len(exchange(browser, tool))==2 and tool.session.done==1 and len(answers_in(tool.session.path))==1

def test_browser_labels_and_focus(browser, tmp_path):
    tool = RatingTool(RatingSession(ROWS, tmp_path, '<i>Ann</i>'))
    show(browser, tool)
    nodes = browser.call('Accessibility.getFullAXTree')['nodes']
    named = {(n['role']['value'], n.get('name', {}).get('value', '')) for n in nodes if not n['ignored']}
    for e in EMOTIONS: assert ('button', e) in named
    assert {('group', 'Which word fits best?'), ('image', 'the picture to rate, number 1 of 6'), ('button', 'Skip'),
            ('button', 'Undo')}<=named
    assert any(role=='application' and 'unpleasant to pleasant' in name for role,name in named)
    assert any(role=='progressbar' and name for role,name in named)
    assert browser.js("document.querySelectorAll('.er-card i').length")==0 # a name is text
    assert browser.js("document.querySelector('.er-card').dataset.lmSuppressShortcuts")=='true'
    order, focused = [], "(e => e.getAttribute('class')+' '+getComputedStyle(e).outlineStyle)(document.activeElement)"
    browser.press('.er-picture')
    for _ in range(12):
        browser.key('Tab')
        order.append(browser.js(focused))
    assert order[0].startswith('er-plane') and order[1:9]==['er-word solid']*8 and 'er-save solid' in order
    browser.js('stop()')
    assert browser.js('Object.keys(heard).length')==0
