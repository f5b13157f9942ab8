'The prior of the mini world, its captions, and the measures of those who learn from it'
import numpy as np
import pandas as pd
import pytest
import torch

from emofeedback.make.models import blurred, captions, fit, latents, mirrored_latents, painted, pixels
from emofeedback.make.report import captioned, detail, reading_quality, sharpness, strongest
from emofeedback.mini.captions import MODIFIERS, phrase, unknown_words
from emofeedback.mini.models import TOKENS, clip_tokenizer, tiny_pipeline, tiny_vae
from emofeedback.mini.prior import KINDS, SHARES, caption, made_marked, made_mild, sample_prior
from emofeedback.mini.scenes import ATTRS, CONTENTS, MOOD, sample_scenes

@pytest.fixture(scope='module')
def data(): return painted(3000, 1000)

@pytest.fixture(scope='module')
def told(data):
    rng = np.random.default_rng(0)
    return [caption(*row, rng) for row in zip(*(data[k].numpy() for k in ('content', 'attrs', 'va', 'kind')))]

def test_kinds_are_as_wide_as_said(data):
    kind = data['kind'].numpy()
    assert np.allclose(np.bincount(kind)/len(kind), SHARES, atol=.03)
    sd = {k: data['va'][data['kind']==i].std(0) for i,k in enumerate(KINDS)}
    assert torch.allclose(sd['mild'], torch.tensor([.6, .7]), atol=.08)
    assert torch.allclose(sd['wide'], torch.tensor([1.5, 1.5]), atol=.1)
    assert ((sd['mild']<sd['marked']) & (sd['marked']<sd['wide'])).all()

def test_same_seed_same_rows(data):
    again = painted(40, 7), painted(40, 7)
    assert all(torch.equal(again[0][k], again[1][k]) for k in data)
    assert not torch.equal(painted(40, 8)['attrs'], again[0]['attrs'])
    one, two = (sample_prior(50, np.random.default_rng(3), shares=(0, 1, 0)) for _ in range(2))
    assert np.array_equal(one[0].attrs, two[0].attrs) and (one[1]==1).all()

def test_mild_scenes_have_little_and_marked_ones_one_to_three_more():
    rng = np.random.default_rng(0)
    attrs = sample_scenes(500, rng).attrs
    before = attrs.copy()
    mild = made_mild(attrs, rng)
    marked = made_marked(mild, rng)
    assert np.array_equal(attrs, before)
    moods = len(MOOD)
    assert np.abs(mild[:,:moods]-.5).max()<=.2 and mild[:,moods:].max()<=.6 and (mild[:,moods:]>0).mean()<.1
    changed = marked!=mild
    assert set(changed.sum(1))=={1, 2, 3}
    assert all(phrase(ATTRS[j], row[j]) for row,js in zip(marked, changed) for j in np.flatnonzero(js))

def test_captions_say_what_is_unusual(data, told):
    said = {k: [] for k in KINDS}
    for text,content,attrs,kind in zip(told, data['content'], data['attrs'].numpy(), data['kind']):
        assert CONTENTS[content] in text
        parts = text.split(', ')
        assert all(p in MODIFIERS for p in parts[1:] if not p.startswith('valence'))
        said[KINDS[kind]] += [p in parts for k,x in zip(ATTRS, attrs) if (p := phrase(k, x))]
    assert not any(said['mild']) and np.mean(said['marked'])>.93 and .6<np.mean(said['wide'])<.85

def test_captions_are_words_that_are_known_and_nearly_all_fit(told):
    assert not {w for t in told for w in unknown_words(t)}
    tok = clip_tokenizer()
    size = np.array([len(tok(t, truncation=False, verbose=False).input_ids) for t in told])
    assert (size>TOKENS).mean()<.003 and size.max()<=TOKENS+4

def test_ids_and_latents_of_training(data):
    some, tok, vae = {k: v[:30] for k,v in data.items()}, clip_tokenizer(), tiny_vae().eval()
    ids = captions(tok, some, 3, 0)
    assert ids.dtype==torch.int16 and tuple(ids.shape)==(3, 30, TOKENS) and torch.equal(ids, captions(tok, some, 3, 0))
    assert not torch.equal(ids[0], ids[1])
    z = mirrored_latents(vae, some, batch=7)
    x = pixels(some)
    assert z.dtype==torch.float16 and tuple(z.shape)==(2, 30, 4, 16, 16)
    for part,shown in zip(z, (x, x.flip(3))):
        torch.testing.assert_close(part.float(), latents(vae, shown), atol=2e-3, rtol=2e-3)

@pytest.mark.parametrize('how', [{}, dict(muon_lr=.1, flat=.5, ema=.9)])
def test_a_run_that_was_cut_off_ends_as_the_whole_one(tmp_path, how):
    def train(folder=None, cut=None):
        torch.manual_seed(0)
        m, calls = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)), iter(range(99))
        def loss(rng):
            if next(calls)==cut: raise KeyboardInterrupt
            return (m(torch.randn(16, 4))-1).square().mean()
        return fit(dict(m=m), loss, 40, lr=.05, every=10, folder=folder, **how), m.state_dict()
    losses, weights = train()
    with pytest.raises(KeyboardInterrupt): train(tmp_path, 31)
    again, same = train(tmp_path)
    assert losses==again and all(torch.equal(v, same[k]) for k,v in weights.items()) and losses[-1]<losses[0]

def test_measures_of_readers_and_pictures(data):
    some = {k: v[:300] for k,v in data.items()}
    perfect, off = reading_quality(some['va'], some), reading_quality(some['va']+.1, some)
    assert list(perfect.index)==[*KINDS, 'all'] and (perfect.r2_v==1).all() and (perfect.error_a==0).all()
    assert np.allclose(off.error_v, .1) and off.r2_v['mild']<off.r2_v['wide']<1
    x = pixels(some)[:40]
    assert (detail(blurred(x, 1.))<detail(x)).all()
    class Exact: 'An autoencoder that loses nothing'
    vae = Exact()
    vae.encode = lambda x: type('Out', (), dict(latent_dist=type('Dist', (), dict(mean=x))))
    vae.decode = lambda z: type('Out', (), dict(sample=z))
    assert sharpness(x, x, vae)==pytest.approx(1) and sharpness(blurred(x, 1.), x, vae)<.8

def test_captioned_renders_fit():
    class Gen: pipe = tiny_pipeline()
    texts, renders = captioned(Gen, 60)
    assert len(texts)==len(renders)<=60
    assert all(len(Gen.pipe.tokenizer(t, truncation=False).input_ids)<=TOKENS for t in texts)

def test_strongest_is_one_phrase_of_each_attribute():
    effects = pd.DataFrame({p: [i, -i] for i,p in enumerate(MODIFIERS)}, index=['v', 'a']).T
    assert [MODIFIERS[p][0] for p in strongest(effects)]==ATTRS
    assert strongest(effects)[0]=='very bright'
