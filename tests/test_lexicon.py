'Lexicon files as they come: every layout and scale, broken in every way we could think of, and a fuzz over both'
import csv
import io
import math
import time

import numpy as np
import pytest

from emofeedback.affect import EMOTIONS
from emofeedback.data import lexicon as lx
from emofeedback.data.lexicon import (FORMS, MIKELS, PUBLISHED, SPREAD, WARRINER, ClassGaussian, classes, lexicon_of,
                                      published, read_lexicon, scale_sd)

NRC = {k: (v, a) for k,(v,_,a,_) in PUBLISHED['nrc'].words.items()}
HEADS = dict(nrc='Word\tValence\tArousal\tDominance', nrc2='term\tvalence\tarousal\tdominance',
             anew='Word\tWdnum\tValMn\tValSD\tAroMn\tAroSD\tDomMn\tDomSD',
             older='Description,Word No.,Valence Mean,Valence SD,Arousal Mean,Arousal SD,Dominance Mean,Dominance SD,'
                   'Word Frequency')
HEADS['warriner'] = ','.join(['', 'Word',
                              *(f'{d}.{k}.{g}' for g in ('Sum', *'MFYOLH') for d in 'VAD'
                                for k in ('Mean', 'SD', 'Rat'))])
HEADS['russell-mehrabian'] = 'Term,Pleasure,Pleasure SD,Arousal,Arousal SD,Dominance,Dominance SD'
ENDS = {k: (f.low, f.high) for k,f in FORMS.items()} | {'older': (1, 9)}

def text(kind, words, header=True):
    'A file in a published layout; `words` maps to valence, its SD, arousal, its SD, each from 0 to 1 of the scale'
    low, high = ENDS[kind]
    lines = [HEADS[kind]] if header else []
    for i,(k,(v,s,a,t)) in enumerate(words.items()):
        v, a, s, t = (f'{x:.6g}' for x in (low+v*(high-low), low+a*(high-low), s*(high-low), t*(high-low)))
        cells = {'nrc': [k, v, a, '.5'], 'nrc2': [k, v, a, '0'], 'anew': [k, i, v, s, a, t, 5, 2],
                 'older': [k, i, v, s, a, t, 5, 2, '.'],
                 'warriner': [i+1, k, v, s, 20, a, t, 20, *['NA']*57],
                 'russell-mehrabian': [k, v, s, a, t, 0, .3]}[kind]
        out = io.StringIO()
        csv.writer(out, 'excel-tab' if '\t' in HEADS[kind] else 'excel', lineterminator='').writerow(cells)
        lines.append(out.getvalue())
    return '\n'.join(lines)+'\n'

def some_words(rng, n, known=True):
    'Made-up words anywhere on the scale, and the eight emotions on the right side of it'
    res = {f'w{i}': (rng.random(), rng.random()*.3, rng.random(), rng.random()*.3) for i in range(n)}
    side = lambda e: (rng.uniform(.55, 1) if e in EMOTIONS[:4] else rng.uniform(0, .45))
    return {**res, **({e: (side(e), .1, rng.random(), .2) for e in EMOTIONS} if known else {})}

def on_plane(kind, words):
    sd = (lambda s, t: SPREAD) if kind.startswith('nrc') else (lambda s, t: (6*s, 6*t))
    return {k: (6*v-3, 6*a-3, *sd(s, t)) for k,(v,s,a,t) in words.items()}

def numbers(words): return {k: (*g.mean, *g.sd) for k,g in words.items()}
def same(read, true): return read.keys()==true.keys() and all(np.allclose(read[k], true[k], atol=1e-3) for k in true)
def put(path, content):
    (path.write_bytes if isinstance(content, bytes) else path.write_text)(content)
    return path

@pytest.mark.parametrize('kind', list(HEADS))
def test_every_layout_is_recognised(tmp_path, kind):
    words = some_words(np.random.default_rng(0), 30)
    f = put(tmp_path/'a.txt', text(kind, words))
    assert same(numbers(read_lexicon(f)), on_plane(kind, words))
    assert read_lexicon(f, {'older': 'anew'}.get(kind, kind))==read_lexicon(f)==lexicon_of(f)

@pytest.mark.parametrize('kind', ['nrc', 'nrc2', 'warriner'])
def test_a_lost_header_does_not_matter(tmp_path, kind):
    words = some_words(np.random.default_rng(1), 30)
    f = put(tmp_path/'a.txt', text(kind, words, header=False))
    assert same(numbers(read_lexicon(f)), on_plane(kind, words))

def test_published_figures_come_back_through_a_file(tmp_path):
    v1 = put(tmp_path/'v1.txt', ''.join(f'{k}\t{v}\t{a}\t0.5\n' for k,(v,a) in NRC.items()))
    assert read_lexicon(v1)==read_lexicon(v1, 'nrc')==published('nrc')
    rows = [[i, k, v, s, 20, a, t, 20] for i,(k,(v,s,a,t)) in enumerate(WARRINER.items())]
    w = put(tmp_path/'w.csv',
            '\n'.join(','.join(map(str, r))
                      for r in [['', 'Word', *'V.Mean.Sum V.SD.Sum V.Rat.Sum A.Mean.Sum A.SD.Sum A.Rat.Sum'.split()],
                                *rows]))
    assert read_lexicon(w)==read_lexicon(w, 'warriner')==MIKELS==published('warriner')

# the scale

def test_one_version_never_passes_for_the_other(tmp_path):
    rng = np.random.default_rng(2)
    for n,known in ((3, True), (1500, False)):
        words = some_words(rng, n, known)
        for kind,taken in (('nrc', 'nrc2'), ('nrc2', 'nrc')):
            for header in (True, False):
                f = put(tmp_path/'a.txt', text(kind, words, header))
                with pytest.raises(ValueError, match='a.txt'): read_lexicon(f, taken)
                assert same(numbers(read_lexicon(f)), on_plane(kind, words))

def test_the_first_version_stretched_is_read_on_its_scale(tmp_path):
    words = some_words(np.random.default_rng(3), 5)
    # version 1's header, version 2's scale
    f = put(tmp_path/'bipolar.txt', text('nrc2', words).replace(HEADS['nrc2'], HEADS['nrc']))
    assert same(numbers(read_lexicon(f)), on_plane('nrc2', words))

def test_few_words_that_prove_nothing_are_refused(tmp_path):
    f = put(tmp_path/'a.txt', 'awe\t.469\t.74\t.3\nlake\t.9\t.2\t.5\n')
    with pytest.raises(ValueError, match='nrc or nrc2: say which'): read_lexicon(f)
    assert read_lexicon(f, 'nrc')['lake'].mean.v==pytest.approx(2.4)
    assert read_lexicon(f, 'nrc2')['lake'].mean.v==pytest.approx(2.7)
    assert lexicon_of(f'nrc2:{f}')==read_lexicon(f, 'nrc2')

def test_a_long_list_on_seven_points_is_not_taken_for_nine(tmp_path):
    rng = np.random.default_rng(4)
    rows = [(f'w{i}', i, *rng.uniform(1, 7, 1), 1, *rng.uniform(1, 7, 1), 1, 5, 2) for i in range(1200)]
    f = put(tmp_path/'a.txt', '\n'.join([HEADS['anew'], *('\t'.join(map(str, r)) for r in rows)]))
    with pytest.raises(ValueError, match='reach only from'): read_lexicon(f)
    assert read_lexicon(f, ends=(1, 7))['w0'].mean.v==pytest.approx((rows[0][2]-4))

def test_words_on_the_wrong_side_give_the_scale_away(tmp_path):
    f = put(tmp_path/'a.txt', 'word\tvalence\tarousal\nfear\t6.2\t7\n')
    with pytest.raises(ValueError, match="'fear' comes out pleasant"): read_lexicon(f, 'nrc', ends=(1, 9))
    assert read_lexicon(put(tmp_path/'b.txt', 'word\tvalence\tarousal\nfear\t2.2\t7\n'), ends=(1, 9))['fear'].mean.v<0

def test_any_file_is_read_rightly_or_refused(tmp_path):
    'The one property that matters, over random lexicons: found out or stated rightly, what is read is what was written'
    rng, read, refused = np.random.default_rng(5),0,0
    for _ in range(250):
        kind = str(rng.choice(list(HEADS)))
        words = some_words(rng, int(rng.choice([0, 1, 2, 5, 40])), known=bool(rng.random()<.5))
        if not words: continue
        header = kind in ('anew', 'older', 'russell-mehrabian') or rng.random()<.5
        f = put(tmp_path/'a.txt', text(kind, words, header))
        try: assert same(numbers(read_lexicon(f)), on_plane(kind, words)), (kind, header, f.read_text()[:300])
        except ValueError as e:
            refused += 1
            assert 'say which' in str(e)
        else: read += 1
    assert read>150 and refused>3

# broken files

GOOD = text('nrc', some_words(np.random.default_rng(6), 10))
def changed(line, new): return '\n'.join(new if i==line else o for i,o in enumerate(GOOD.splitlines(), 1))+'\n'

@pytest.mark.parametrize('cells',
                         ['x\tnan\t.5\t.5', 'x\tinf\t.5\t.5', 'x\t1e400\t.5\t.5', 'x\t.5\t-1e-9\t.5',
                          'x\t.5\t1.0001\t.5', 'x\t\t.5\t.5', 'x\t.5\tNA\t.5', 'x\t0,5\t.5\t.5',
                                   'x\t.5 .5\t.5\t.5', '\t.5\t.5\t.5', 'x\t--1\t.5\t.5', 'x\t.5', 'x', 'x .5 .5 .5',
                                   'x,.5,.5,.5', 'x\t\u00b2\t.5\t.5', 'x\t0x1\t.5\t.5'])
def test_one_broken_line_stops_with_its_number(tmp_path, cells):
    f = put(tmp_path/'a.txt', changed(7, cells))
    with pytest.raises(ValueError, match='a.txt, line 7'): read_lexicon(f, 'nrc')
    with pytest.raises(ValueError, match='line 7'): read_lexicon(f)
    assert read_lexicon(put(f, changed(7, 'x\t.5\t.5\t.5')))['x'].mean==ClassGaussian.rated(.5, None, .5, None, 0,
                                                                                            1).mean

@pytest.mark.parametrize('sd', ['-0.1', 'nan', '', '9', 'NA'])
def test_a_broken_spread_stops_too(tmp_path, sd):
    f = put(tmp_path/'a.txt', f'{HEADS["anew"]}\nfear\t1\t2.9\t1.8\t6.1\t{sd}\t5\t2\n')
    with pytest.raises(ValueError, match='line 2'): read_lexicon(f)

def test_encodings_and_line_ends(tmp_path):
    true = read_lexicon(put(tmp_path/'a.txt', GOOD.encode()))
    for same_text in (b'\xef\xbb\xbf'+GOOD.encode(), GOOD.replace('\n', '\r\n').encode(),
                      GOOD.replace('\n', '\r').encode(), GOOD.rstrip().encode(), b'\n\n'+GOOD.encode()+b'\n\n',
                      GOOD.replace('\n', '\t\n').encode()):
        assert read_lexicon(put(tmp_path/'b.txt', same_text))==true, same_text[:40]
    bare = GOOD.split('\n', 1)[1]
    assert read_lexicon(put(tmp_path/'b.txt', b'\xef\xbb\xbf'+bare.encode()),
                        'nrc')==true==read_lexicon(put(tmp_path/'b.txt', GOOD+' \t \n\t\t\t\n'))
    for other in (GOOD.encode('utf-16'), b'caf\xe9\t.5\t.5\t.5\n', bytes(range(128, 256))):
        with pytest.raises(ValueError, match='not UTF-8 text'): read_lexicon(put(tmp_path/'c.txt', other))

def test_odd_words_stay_words(tmp_path):
    odd = ['joie de vivre', "can't", 'naïve', 'e\u0301', '\U0001f600', 'a\u2028b', 'a\u0085b', 'a\x0bb', '"quoted',
           "d'accord", 'null', 'nan', '50 percent', '日本', 'I\u0307']
    f = tmp_path/'a.txt'
    f.write_text(GOOD+''.join(f'{w}\t.25\t.75\t.5\n' for w in odd), encoding='utf-8')
    words = read_lexicon(f)
    assert all(tuple(words[w.lower()].mean)==(-1.5, 1.5) for w in odd)
    assert len(words)==len(read_lexicon(put(tmp_path/'b.txt', GOOD)))+len(odd)
    rows = some_words(np.random.default_rng(7), 2)|{k: (.5, .1, .5, .1) for k in ('well, well', 'say "no"', 'a\tb')}
    assert read_lexicon(put(f, text('warriner', rows))).keys()==rows.keys()

def test_the_first_of_two_entries_counts(tmp_path):
    f = put(tmp_path/'a.txt', GOOD+'Lake\t.1\t.1\t.5\nlake\t.9\t.9\t.5\n LAKE \t.8\t.8\t.5\n')
    assert read_lexicon(f)['lake'].mean.v==pytest.approx(-2.4)

@pytest.mark.parametrize('content',
                         ['', '\n', '\n \t \n', '\ufeff', 'word\tvalence\n', 'lake\t.5\n', 'hello\n', 'a,b,c\n1,2,3\n',
                          '{"fear": [1, 2]}', '\x00\x00', 'valence\tarousal\n.5\t.5\n', 'Word,Valence\nfear,.1\n'])
def test_what_is_no_lexicon_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match='a.txt'): read_lexicon(put(tmp_path/'a.txt', content.encode()))

def test_a_header_alone_has_no_words(tmp_path):
    for kind in HEADS:
        with pytest.raises(ValueError, match='no words'): read_lexicon(put(tmp_path/'a.txt', HEADS[kind]+'\n'))

def test_a_download_that_broke_off(tmp_path):
    f, whole, refused = tmp_path/'a.txt',read_lexicon(put(tmp_path/'b.txt', GOOD)),0
    for n in range(1, len(GOOD.splitlines()[-1])):
        cut = GOOD[:-n-1]
        # only the dominance is cut, which nobody reads
        if cut.splitlines()[-1].count('\t')==3: assert read_lexicon(put(f, cut))==whole
        else:
            with pytest.raises(ValueError, match='a.txt, line 19: '): read_lexicon(put(f, cut), 'nrc')
            refused += 1
    assert refused>10

def test_an_open_quote_does_not_swallow_rows(tmp_path):
    rows = text('warriner', some_words(np.random.default_rng(8), 6)).splitlines()
    rows[3] = rows[3].replace(',w2,', ',"w2,')
    with pytest.raises(ValueError, match='line'): read_lexicon(put(tmp_path/'a.csv', '\n'.join(rows)))
    # a second one closes the first, and what lies between would look like one word
    rows[5] = rows[5].replace(',w4,', ',"w4,')
    with pytest.raises(ValueError, match='line 6'): read_lexicon(put(tmp_path/'a.csv', '\n'.join(rows)))

def test_fuzz_of_bytes_reads_sound_words_or_says_why(tmp_path):
    rng, f, outcomes = np.random.default_rng(9), tmp_path/'a.txt',{True: 0, False: 0}
    seeds = [text(k, some_words(rng, 6)).encode() for k in HEADS]
    junk = [b'\t', b',', b'\n', b'\r', b'"', b'\x00', b'\xff', b'-', b'nan', b'1e999', b'\xe2\x80\xa8', b'9'*400, b'.',
            b' ', b'\xef\xbb\xbf', b'Valence', b'\t'*50]
    for _ in range(1500):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 5)):
            i, j = sorted(rng.integers(0, len(data)+1, 2))
            if rng.random()<.5: data[i:i] = junk[rng.integers(len(junk))]
            elif rng.random()<.7: data[i:min(j, i+12)] = b''
            else: data[i:i] = data[i:j]
        f.write_bytes(data)
        try: words = read_lexicon(f)
        except ValueError as e:
            assert 'a.txt' in str(e) and str(e)[-1]!=' ', str(e)
            outcomes[False] += 1
        else:
            assert words and all(k==k.strip().lower() and k for k in words)
            assert all(math.isfinite(s) and 0<=s<=6 for g in words.values() for s in g.sd)
            outcomes[True] += 1
    assert min(outcomes.values())>100, outcomes

def test_large_files_are_quick(tmp_path):
    rng = np.random.default_rng(10)
    f, g = put(tmp_path/'nrc.txt', text('nrc2', some_words(rng, 55_000))), put(tmp_path/'warriner.csv',
                                                                              text('warriner', some_words(rng, 14_000)))
    start = time.process_time()
    assert len(read_lexicon(f))==55_008 and len(read_lexicon(g))==14_008
    assert time.process_time()-start<6

# names and classes

def test_names_and_paths(tmp_path, monkeypatch):
    assert all(lexicon_of(k)==published(k) for k in PUBLISHED)
    monkeypatch.chdir(tmp_path)
    put(tmp_path/'warriner', GOOD)
    assert lexicon_of('warriner')==MIKELS and 'w0' in lexicon_of('./warriner')  # a name is a name, a path has a slash
    for name in ('nowhere.txt', '.', '', 'nrc:', 'nrc:nowhere.txt', 'C:\\lexicon.txt'):
        with pytest.raises(FileNotFoundError, match='use warriner, nrc, russell-mehrabian'): lexicon_of(name)
    with pytest.raises(ValueError, match='use one of warriner'): read_lexicon('warriner', 'nrc3')
    with pytest.raises(ValueError, match='use one of warriner'): published('anew')

def test_near_words_only_when_asked():
    rm = published('russell-mehrabian')
    with pytest.raises(ValueError, match='enjoyment for amusement'): classes(rm)
    assert classes(rm, near=True)['contentment']==rm['relaxed']
    assert list(classes(rm, iter(EMOTIONS), near=True))==EMOTIONS
    with pytest.raises(ValueError, match='no entry for love: use another, or add a `ClassGaussian` of your own$'):
        classes(MIKELS, ['fear', 'love'])
    with pytest.raises(ValueError, match='no entry for awe'):
        classes({k: g for k,g in rm.items() if k!='awed'}, near=True)

def test_scaled():
    assert scale_sd(MIKELS, 0)['awe'].sd==(0, 0) and scale_sd(MIKELS, 0)['awe'].mean==MIKELS['awe'].mean
    assert scale_sd(scale_sd(MIKELS, 4), .25)==MIKELS
    for bad in (-.1, math.nan, math.inf):
        with pytest.raises(ValueError, match='from 0 up'): scale_sd(MIKELS, bad)

def test_no_lexicon_is_shipped():
    assert max(len(f.words) for f in PUBLISHED.values())==8
    words = {w for f in PUBLISHED.values() for w in f.words}
    assert len(words)==16 and not [k for k in vars(lx) if isinstance(vars(lx)[k], dict) and len(vars(lx)[k])>8
                                   and not k.startswith('__')]
