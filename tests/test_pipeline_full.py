'The pipeline and its scores at full size, on scaled-down models of the real architectures'
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from emofeedback.core import Affect, Judgement, Prompt
from emofeedback.feedback.guard import ContentGuard
from emofeedback.generation.preference import (
    Aesthetic, ClipScore, aesthetic_score, clip_iqa, clip_pixels, pick_score, preference_of)
from emofeedback.generation.rewards import score
from emofeedback.generation.sd3 import SD3
from emofeedback.images import to_pil, to_tensor
from emofeedback.pipeline import EmoFeedback
from emofeedback.recipes import mini_rf
from emofeedback.system import quiet
from emofeedback.train import train_generator
from emofeedback.understanding.judge import LVLMJudge

LAKE = 'a lake by a forest'
FAST = dict(steps=2, guidance_scale=2., device='cpu', size=64)

class Bright(LVLMJudge):
    'Reads brightness off the pixels, and advises as the model that it holds'
    def judge(self, images, prompts=None):
        x = to_tensor(images) if isinstance(images, list) else images
        return [Judgement(Affect(6*o.mean().item()-3, 6*o[0].mean().item()-3)) for o in x]

class Adviser(Bright):
    'Advises what a model that knows the question would; its greedy answers break off'
    def answer(self, questions, pictures, *args, seeds=None, **kwargs):
        advice = '<answer>{"valence": 0.5, "arousal": -0.5, "add": "golden light"}</answer>'
        return [advice if seeds else advice[:30]]*len(questions)

def judge_of(qwen, kind=Bright, dtype=torch.float32):
    with quiet(): return kind.from_pretrained(qwen, device='cpu', dtype=dtype, max_new_tokens=8)

def clouds(n=3, size=(300, 420)):
    'Soft clouds of colour: as in photos, neighbours are alike'
    x = torch.rand(n, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(x, size=size, mode='bilinear')

def asked(text='a joyful lake'): return [Prompt('a lake', Affect(2, -1), text)]*3

# ---- scores ----------------------------------------------------------------------------------------------------------

def test_pickscore_is_the_published_one(pickscore):
    'The same pixels as the processor of its folder, and the logits of the model'
    from transformers import CLIPModel, CLIPProcessor
    weights, processor = pickscore
    ours = pick_score(weights, processor)
    with quiet():
        model, theirs = CLIPModel.from_pretrained(weights), CLIPProcessor.from_pretrained(processor)
    for size in ((300, 420), (64, 64), (1024, 512)):
        images = to_tensor(to_pil(clouds(size=size)))
        inputs = theirs(text=['a joyful lake'], images=to_pil(images), padding=True, return_tensors='pt')
        pixels = clip_pixels(images, 224, ours.mean, ours.std)
        gap = (pixels-inputs.pixel_values).abs()*255*torch.tensor(ours.std).view(3, 1, 1) # in grey levels
        assert pixels.shape==inputs.pixel_values.shape and gap.mean()<.6 and gap.max()<3
        with torch.no_grad(): logits = model(**inputs).logits_per_image[:, 0]
        torch.testing.assert_close(ours(images, asked('a joyful lake, valence 2.0 arousal -1.0')), logits,
                                   atol=.01, rtol=1e-3)
        torch.testing.assert_close(pick_score(weights, processor, unit=26)(images, asked())*26, ours(images, asked()))
    half = pick_score(weights, processor, dtype=torch.bfloat16)
    assert half.model.dtype==torch.bfloat16
    torch.testing.assert_close(half(images, asked()), ours(images, asked()), atol=.1, rtol=.05)

def test_weights_without_their_processor_are_refused(pickscore):
    weights, processor = map(str, pickscore)
    with pytest.raises(ValueError, match='no tokenizer and no preprocessor.*pickscore:WEIGHTS:PROCESSOR'):
        preference_of(weights)
    with pytest.raises(ValueError, match='no tokenizer'): preference_of(f'clip-iqa:{weights}')
    with pytest.raises((ValueError, FileNotFoundError)): preference_of(processor) # no weights
    named = preference_of(f'pickscore:{weights}:{processor}')
    lake, dog = named.embed_texts(['a lake', 'an old man']) # the garbage of before gave 1.0
    assert lake@dog<.999

def test_a_processor_of_another_model_is_refused(pickscore, tmp_path):
    from transformers import CLIPTokenizer
    weights, processor = pickscore
    for f in processor.iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    with quiet():
        tok = CLIPTokenizer.from_pretrained(processor)
        tok.add_tokens(['emofeedback'])
        tok.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='give the processor that belongs to it'): pick_score(weights, tmp_path)

@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_metrics_of_weight_zero(pickscore, tmp_path, suffix):
    'The aesthetic head in its published layout, and CLIP-IQA: seen, not rewarded'
    clip = ClipScore.from_pretrained(*pickscore)
    sizes = [32, 1024, 128, 64, 16, 1]
    layers = {f'layers.{k}': torch.nn.Linear(*o) for k,o in zip((0, 2, 4, 6, 7), zip(sizes, sizes[1:]))}
    state = {f'{k}.{n}': x.detach() for k,o in layers.items() for n,x in o.state_dict().items()}
    (save_file if suffix=='safetensors' else torch.save)(state, tmp_path/f'head.{suffix}')
    for f in (*pickscore[0].iterdir(), *pickscore[1].iterdir()): (tmp_path/f.name).write_bytes(f.read_bytes())
    beauty, iqa = aesthetic_score(tmp_path/f'head.{suffix}', tmp_path), clip_iqa(tmp_path)
    assert isinstance(preference_of(f'aesthetic:{tmp_path}/head.{suffix}:{tmp_path}'), Aesthetic)
    x = clip.embed_images(clouds())
    for o in layers.values(): x = o(x)
    torch.testing.assert_close(beauty(clouds()), x[:, 0].detach())
    p = 100*clip.embed_images(clouds())@clip.embed_texts(['Good photo.', 'Bad photo.']).T
    torch.testing.assert_close(iqa(clouds()), 1/(1+(p[:, 1]-p[:, 0]).exp()))
    fns = dict(preference=pick_score(*pickscore), aesthetic=beauty, clip_iqa=iqa)
    found = score(fns, dict(preference=.3), clouds(), asked())
    assert set(found.parts)=={'preference', 'aesthetic', 'clip_iqa'}
    torch.testing.assert_close(found.total(), .3*found.parts['preference'])

@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_an_aesthetic_head_is_never_run_as_code(tmp_path, pickscore):
    import pickle
    class Evil:
        def __reduce__(self): return (print, ('run',))
    (tmp_path/'head.pth').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='aesthetic head .* cannot be read'): aesthetic_score(tmp_path/'head.pth')

# ---- pipeline --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_from_pretrained_end_to_end(sd35, qwen, pickscore, dtype):
    'A stock pair: lists, a step callback, PickScore as reward and a CLIP as guard'
    weights, processor = pickscore
    scores = dict(preference=f'pickscore:{weights}:{processor}', guard=ClipScore.from_pretrained(weights, processor))
    emo = EmoFeedback.from_pretrained(sd35, judge_of(qwen, dtype=dtype), dtype=dtype, **scores, **FAST)
    assert emo.gen.net.dtype==emo.judge.model.dtype==dtype and emo.gen.size==64
    assert emo.clip is not emo.guard.clip and emo.clip.scale!=emo.guard.clip.scale==100
    seen = []
    found = emo([LAKE, 'a dog on the beach', 'an old man'], 2, [-1, 0, 1], rounds=2, images=3,
                progress=False, on_step=lambda *o: seen.append(o))
    assert [o.rounds[0].prompt.target for o in found]==[Affect(2, -1), Affect(2, 0), Affect(2, 1)]
    assert found[0].rounds[0].prompt.text==f'{LAKE}, content mood, valence 2.0 arousal -1.0'
    assert seen==[(k+1, 2*2*2) for k in range(8)] # rounds × batches of 8 × steps
    assert all(o.image.size==(64, 64) and torch.isfinite(r.images).all() for o in found for r in o.rounds)
    one = emo(LAKE, 2, -1, rounds=1, images=3)
    torch.testing.assert_close(one.rounds[0].images, found[0].rounds[0].images, atol=.05, rtol=0)
    assert emo.clip(one.rounds[0].images, asked()).isfinite().all()

def test_a_stock_judge_is_loaded_and_its_silence_is_told(sd35, qwen):
    emo = EmoFeedback.from_pretrained(sd35, qwen, write='words', **FAST)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        found = emo(LAKE, -2, 2, rounds=1, images=2)
    assert found.best is None and any('could not be read' in str(o.message) for o in told)
    assert found.texts==[f'{LAKE}, angry mood'] and emo.adviser.judge==emo.judge.judge

def test_the_models_take_turns(sd35, qwen, pickscore):
    'Offloaded, with the CPU in both parts: the same pictures, and nothing stays where it worked'
    both = dict(preference=f'pickscore:{pickscore[0]}:{pickscore[1]}')
    plain = EmoFeedback.from_pretrained(sd35, judge_of(qwen, Adviser), **both, **FAST)
    emo = EmoFeedback.from_pretrained(sd35, judge_of(qwen, Adviser), offload=True, **both, **FAST)
    parts = emo.gen.pipe.components
    hooked = [k for k,o in parts.items() if isinstance(o, torch.nn.Module) and hasattr(o, '_hf_hook')]
    assert set(hooked)=={'text_encoder', 'text_encoder_2', 'text_encoder_3', 'transformer', 'vae'}
    moves = []
    watched = dict(judge=emo.judge.model, clip=emo.clip.model, net=emo.gen.net, t5=emo.gen.pipe.text_encoder_3)
    for name,o in watched.items():
        def to(*args, name=name, was=o.to, **kwargs):
            moves.append((name, str(args[0]) if args else ''))
            return was(*args, **kwargs)
        o.to = to
    one, two = (e(LAKE, 2, -1, rounds=2, images=2, progress=False) for e in (plain, emo))
    assert all(torch.equal(a.images, b.images) for a,b in zip(one.rounds, two.rounds)) and one.texts==two.texts
    names = [name for name,_ in moves]
    assert names.index('t5')<names.index('net')<names.index('judge') and 'clip' in names
    assert all([d for n,d in moves if n==name][-1]=='cpu' for name in ('judge', 'clip'))
    assert len(emo.rate(to_pil(one.rounds[0].images)))==2
    assert emo.to('cpu') is emo and not hasattr(emo.gen.net, '_hf_hook') and emo.offload is None
    torch.testing.assert_close(emo(LAKE, 2, -1, rounds=0).rounds[0].images, one.rounds[0].images[:1], atol=1e-3,
                               rtol=0)

def test_advice_that_breaks_off_is_sampled_once_more(sd35, qwen):
    emo = EmoFeedback.from_pretrained(sd35, judge_of(qwen, Adviser), **FAST)
    found = emo(LAKE, 2, -1, rounds=2, images=2, progress=False)
    assert 'golden light' in found.texts[1]
    plain = EmoFeedback.from_pretrained(sd35, judge_of(qwen, Adviser), adviser=judge_of(qwen, Adviser), **FAST)
    first = plain(LAKE, 2, -1, rounds=2, images=2, progress=False).rounds[0]
    assert first.note.startswith('the advice could not be read')

def test_an_error_in_the_callback_stops_the_drawing(sd35, qwen):
    emo = EmoFeedback.from_pretrained(sd35, judge_of(qwen), **FAST)
    def stop(i, n): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): emo(LAKE, 2, -1, rounds=1, images=2, on_step=stop)
    assert not emo.gen.net._forward_hooks
    with pytest.raises(ValueError, match='lists of one length'): emo([LAKE]*2, [1, 2, 3], 0)
    with pytest.raises(ValueError, match='no prompts'): emo([], 1, 0)

def test_guard_in_the_units_of_pickscore(pickscore):
    'A reward that reads the whole text guards by the content alone'
    pick = pick_score(*pickscore)
    guard, same = ContentGuard(pick), ContentGuard(ClipScore.from_pretrained(*pickscore))
    p = Prompt('a lake', Affect(2, -1), 'a lake, children playing in the rain, valence 2.0 arousal -1.0')
    share = guard.margin(p, clouds())/pick.scale
    torch.testing.assert_close(share, same.margin(p, clouds())/100, atol=1e-5, rtol=1e-4)

def test_adapters_and_judge_in_stock_libraries(sd35, qwen, tmp_path):
    'Ours in diffusers, those of diffusers here; a judge of ours in transformers'
    from diffusers import StableDiffusion3Pipeline
    from transformers import Qwen2_5_VLForConditionalGeneration
    with quiet():
        gen = SD3.from_pretrained(sd35, dtype=torch.float32, size=64).add_lora(rank=4, alpha=8)
        for k,p in enumerate(gen.params()): p.data.normal_(0, .05, generator=torch.Generator().manual_seed(k))
        gen.save(tmp_path/'ours')
        pipe = StableDiffusion3Pipeline.from_pretrained(sd35, dtype=torch.float32)
        pipe.load_lora_weights(tmp_path/'ours')
        pipe.set_progress_bar_config(disable=True)
        noise = gen.noise(1, torch.Generator().manual_seed(0))
        theirs = pipe(LAKE, num_inference_steps=2, guidance_scale=2., height=64, width=64, latents=noise,
                      output_type='pt').images
        layers = pipe.transformer.state_dict()
        pipe.save_lora_weights(tmp_path/'theirs', {k: v for k,v in layers.items() if 'lora_' in k})
        again = SD3.from_pretrained(sd35, tmp_path/'ours', dtype=torch.float32, size=64)
        judge = LVLMJudge.from_pretrained(qwen, device='cpu')
        judge.model.save_pretrained(tmp_path/'judge')
        judge.processor.save_pretrained(tmp_path/'judge')
        stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path/'judge')
    torch.testing.assert_close(gen.sample([LAKE], 2, 2., x=noise), theirs.float(), atol=1e-3, rtol=0)
    assert torch.equal(gen.sample([LAKE], 2, 2., x=noise), again.sample([LAKE], 2, 2., x=noise))
    assert all(torch.equal(p, q) for p,q in zip(judge.model.parameters(), stock.parameters()))
    assert LVLMJudge.from_pretrained(tmp_path/'judge', device='cpu').judge(torch.rand(1, 3, 56, 56))

def test_reward_without_a_preference_is_told(tmp_path):
    emo, recipe = EmoFeedback.mini(), mini_rf()
    emo.clip = None
    small = replace(recipe, config=replace(recipe.config, prompts=1, group_size=4))
    with pytest.warns(UserWarning, match='the reading of the judge is the only reward'):
        log = train_generator(emo, small, ['a lake'], tmp_path/'run', updates=1, progress=False)
    assert 'reward/preference' not in log[0]
