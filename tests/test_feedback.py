'What can go wrong in the feedback loop and the evaluation, put in on purpose'
import math
import warnings

import pytest
import torch

from emofeedback.core import Affect, Judgement, Prompt
from emofeedback.data.prompts import with_target
from emofeedback.evaluation.evaluate import compare, evaluate, summary
from emofeedback.evaluation.metrics import agreement, paired
from emofeedback.feedback.advisers import chance_adviser
from emofeedback.feedback.consequences import Consequences, consequence_reward, drawn_situations, rows_for_advice
from emofeedback.feedback.guard import ContentGuard
from emofeedback.feedback.loop import best_of_n, draw, textual_feedback
from emofeedback.generation.sd3 import SD3
from emofeedback.mini.advice import SCENES, exchanged
from emofeedback.mini.models import tiny_pipeline
from emofeedback.pipeline import EmoFeedback
from emofeedback.understanding.questions import Suggest, Suggestion

LONG = 'a lake by a forest ' + 'so very '*40

@pytest.fixture(scope='module')
def gen(): return SD3(tiny_pipeline(seed=0), keep_empty_t5=False)

def wish(content='a lake by a forest', v=1.5, a=1.):
    t = Affect(v, a)
    return Prompt(content, t, with_target(content, t))

class Faulty:
    'Reads brightness and redness off the pixels; advice and faults are put in by the test'
    def __init__(self, advice=None, unreadable=lambda i: False):
        self.advice, self.unreadable, self.asked = advice, unreadable, []

    def judge(self, images, prompts=None):
        va = [(6*x.mean().item()-3, 6*x[0].mean().item()-3) for x in images]
        return [Judgement(None if self.unreadable(i) else Affect.clamp(*p)) for i,p in enumerate(va)]

    def suggest(self, prompts, best_images, best, worst_images, worst, mean_gaps):
        assert len(prompts)==len(best)==len(worst)==len(mean_gaps)==len(best_images)==len(worst_images)
        self.asked += [p.text for p in prompts]
        return [self.advice(p) if callable(self.advice) else self.advice for p in prompts]

def run(gen, judge, *prompts, **kw):
    return textual_feedback(gen, judge, list(prompts) or [wish()], images=4, steps=2, progress=False, **kw)

def test_unreadable_advice_keeps_the_text(gen):
    fb, = run(gen, Faulty(None))
    assert fb.texts==[wish().text]*3 and 'could not be read' in fb.rounds[0].note and fb.best is not None

def test_rewrite_without_the_content_is_never_drawn(gen):
    fb, = run(gen, Faulty(Suggestion(0., 0., '', 'a black square')))
    assert fb.texts==[wish().text]*3 and not fb.refused
    assert 'loses lake, forest' in fb.rounds[0].note and 'black square' in fb.rounds[0].suggestion

def test_rewrite_too_long_for_the_generator_is_refused(gen):
    fb, = run(gen, Faulty(Suggestion(0., 0., '', LONG)))
    assert fb.texts==[wish().text]*3 and 'tokens' in fb.rounds[0].note

def test_a_rewrite_is_checked_once(gen):
    'Text and length before it is drawn, pictures after, and none of it again'
    class Counts:
        def __init__(self): self.lengths, self.scores = [], []
        def check_length(self, texts): self.lengths += texts
        def __call__(self, images, prompts):
            self.scores.append(len(images))
            return torch.tensor([float(p.content==wish().content) for p in prompts])
    seen = Counts()
    p = wish()
    fb, = run(gen, Faulty(Suggestion(.5, 0., 'fog')), p, rounds=2, guard=ContentGuard(seen, seen))
    assert fb.texts[1]!=p.text and seen.lengths==fb.texts[1:] and seen.scores==[4]*4

def test_a_first_prompt_that_is_too_long_is_refused_before_work(gen):
    drawn = []
    with pytest.raises(ValueError, match='tokens'):
        draw(gen, [wish().text, LONG], n=2, steps=2, batch_size=2, on_pictures=drawn.append)
    assert not drawn

def test_pictures_that_lose_the_content_do_not_count(gen):
    'The rewritten text draws, its pictures are refused, the loop goes back and does not try it again'
    seen = []
    def guard(text, prompt, images=None, first=None):
        if images is not None: seen.append(text)
        return 'gone' if images is not None and 'fog' in text else None
    judge = Faulty(Suggestion(.5, 0., 'fog'))
    p = wish()
    fb, = run(gen, judge, p, rounds=5, guard=guard)
    fog = Suggestion(.5, 0., 'fog').apply(p)
    assert fb.texts==[p.text, fog, p.text, p.text, p.text] and fb.refused=={1} and seen==[fog]
    assert 'refused: gone' in fb.rounds[1].note and 'drawn before' in fb.rounds[2].note and fb.text==p.text
    assert fb.best_score==max(r.scores.max().item() for k,r in enumerate(fb.rounds) if k!=1)
    assert set(judge.asked)=={p.text} # a refused round is never what is asked about

def test_image_guard_is_blind_to_the_scale_of_its_score():
    'A dull first round, an ordinary fall and a lost content, by scores of any scale and offset'
    first = .6+.001*torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for scale,offset in ((1., 0.), (100., -7.), (.01, .8)):
        def score(images, prompts):
            own = torch.tensor([p.content==wish().content for p in prompts])
            return offset+scale*torch.where(own, images.mean((1, 2, 3)), .1)
        guard = ContentGuard(score, others=['a dog', 'a car'])
        assert guard(wish().text, wish(), first, first) is None
        assert guard(wish().text, wish(), first-.1, first) is None
        assert 'lose the content' in guard(wish().text, wish(), first-.4, first)
        one = torch.cat([first[:7], 0*first[:1]])
        assert guard(wish().text, wish(), one, first) is None, 'one failed picture decides'
    assert ContentGuard()(wish().text, wish(), 0*first, first) is None

@pytest.mark.parametrize('content', ('a city', 'a lake by a forest', 'a house by a path'))
def test_guard_on_the_bundled_models(content):
    'Refuses the pictures of another content, and passes those of the right one in any weather'
    emo = EmoFeedback.mini()
    guard = ContentGuard(emo.clip, emo.gen, SCENES)
    texts = content, f'{content}, heavy rain', 'a desert with a cactus', 'a mountain above a valley'
    first, rain, *wrong = draw(emo.gen, texts)
    p = Prompt(content, Affect(0, 0))
    assert guard(texts[1], p, rain, first) is None
    assert all('lose the content' in guard(p.text, p, x, first) for x in wrong)

def test_half_unreadable(gen):
    fb, = run(gen, Faulty(Suggestion(.1, .1), unreadable=lambda i: i%2==0))
    assert all(r.scores.isnan().sum()==2 for r in fb.rounds) and fb.best[1]%2==1
    assert fb.texts[1]=='a lake by a forest, valence 1.6 arousal 1.1' # advice from the two that could be read

def test_one_readable_picture_is_too_few_to_compare(gen):
    fb, = run(gen, Faulty(Suggestion(.1, .1), unreadable=lambda i: i>0))
    assert fb.texts==[wish().text]*3 and 'fewer than two' in fb.rounds[0].note and fb.best[1]==0

def test_a_failing_judge_is_not_a_score(gen):
    class Broken(Faulty):
        def judge(self, images, prompts=None): raise RuntimeError('out of memory')
    with pytest.raises(RuntimeError, match='out of memory'): run(gen, Broken())

def test_prompts_do_not_disturb_each_other(gen):
    def advice(p): return Suggestion(.4, -.3, 'fog') if 'lake' in p.text else None
    alone, = run(gen, Faulty(advice))
    with pytest.warns(UserWarning, match='1 of 2 prompts'):
        both = run(gen, Faulty(advice, unreadable=lambda i: i>=4), wish(), wish('a city'))
    assert both[0].texts==alone.texts and both[1].best is None
    for a,b in zip(alone.rounds, both[0].rounds): torch.testing.assert_close(a.images, b.images, atol=1e-4, rtol=0)

def test_numbers_stay_on_the_plane(gen):
    fb, = run(gen, Faulty(Suggestion(5., 5.)), wish(v=2.5, a=2.9))
    assert fb.texts[1]=='a lake by a forest, valence 3.0 arousal 3.0'
    assert fb.rounds[0].prompt.target==Affect(2.5, 2.9)

@pytest.mark.parametrize('v,a,add', ((-.5, .2, ''), (.5, -.2, 'fog'), (0., 0., 'heavy rain')))
def test_advice_is_followed_as_it_was_given(gen, v, a, add):
    'Also where it points away from the target, or adds a phrase for a small gap'
    fb, = run(gen, Faulty(Suggestion(v, a, add)))
    assert fb.texts[1]==Suggestion(v, a, add).apply(wish())
    assert fb.rounds[0].suggestion.startswith(f'valence {v:+.1f} arousal {a:+.1f}') and not fb.rounds[0].note

def test_how_advice_is_taken_is_an_argument(gen):
    judge = Faulty(lambda p: Suggestion(.4, 0., 'thick fog' if 'fog' in p.text else 'fog'))
    seen = []
    def take(suggestion, prompt):
        seen.append(prompt.text)
        return exchanged(suggestion, prompt)
    fb, = run(gen, judge, take=take)
    assert seen[0]==fb.texts[0] and fb.texts[1]=='a lake by a forest, fog, valence 1.7 arousal 1.0'

def test_exchange():
    p = Prompt('a lake', Affect(1., 1.), 'a lake, fog, sunshine, valence 1.0 arousal 1.0')
    assert exchanged(Suggestion(.4, 1., 'light fog'), p)=='a lake, sunshine, light fog, valence 1.2 arousal 1.5'
    assert exchanged(Suggestion(0., 0., 'a kite', drop='fog, rain'), p).startswith('a lake, sunshine, a kite, valence')
    many = p.with_text('a lake, fog, sunshine, rain, very dark')
    assert exchanged(Suggestion(0., 0., 'snow'), many)=='a lake, sunshine, rain, very dark, snow'

def test_one_warning_for_all(gen):
    with pytest.warns(UserWarning, match='2 of 2 prompts'):
        run(gen, Faulty(unreadable=lambda i: True), wish(), wish('a city'))

BAD = dict(one_image=(dict(images=1), 'at least 2'), no_round=(dict(rounds=0), 'at least 1'),
           negative=(dict(rounds=-1), 'rounds=-1'), no_prompt=(dict(prompts=[]), 'at least one'))

@pytest.mark.parametrize('bad,words', BAD.values(), ids=BAD)
def test_refused_before_work(gen, bad, words):
    with pytest.raises(ValueError, match=words):
        textual_feedback(gen, Faulty(), **dict(prompts=[wish()])|bad)

def test_best_of_n_is_the_loop_without_words(gen):
    fb, b = run(gen, Faulty(None))[0], best_of_n(gen, Faulty(None), [wish()], n=12, steps=2)[0]
    torch.testing.assert_close(torch.cat([r.images for r in fb.rounds]), b.rounds[0].images, atol=1e-4, rtol=0)
    assert fb.best[0]*4+fb.best[1]==b.best[1]
    with pytest.raises(ValueError, match='at least 1'): best_of_n(gen, Faulty(), [wish()], n=0)

def test_pictures_are_counted(gen):
    counts = dict(loop=[], best=[], evaluate=[])
    run(gen, Faulty(None), on_pictures=counts['loop'].append)
    best_of_n(gen, Faulty(None), [wish()], n=5, steps=2, batch_size=3, on_pictures=counts['best'].append)
    evaluate(gen, Faulty(), [wish()], per_prompt=2, steps=2, on_pictures=counts['evaluate'].append)
    assert counts==dict(loop=[4, 4, 4], best=[3, 2], evaluate=[2])

@pytest.mark.parametrize('readable,found', ((0, 0), (1, 0), (2, 1), (4, 1)))
def test_situations_need_two_readable_pictures(gen, readable, found):
    judge = Faulty(None, unreadable=lambda i: i>=readable)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        turns = drawn_situations(gen, judge, [wish()], rounds=1, steps=2)
    assert len(turns)==found

def test_situations_of_refused_rounds_are_left_out(gen):
    def guard(text, prompt, images=None, first=None): return None if images is None else 'gone'
    turns = drawn_situations(gen, Faulty(Suggestion(.5, 0., 'fog')), [wish()], rounds=3, steps=2, guard=guard)
    assert {t.prompt.text for t in turns}=={wish().text}

class Painted:
    'Draws brightness by words: the reader above reads it off'
    levels = dict(bright=.9, fair=.6, dark=.1, lost=.95)
    def check_length(self, texts):
        if any(len(t)>60 for t in texts): raise ValueError('too many tokens')
    def encode(self, texts): return texts
    def noise(self, n, generator=None): return torch.zeros(n, 1)
    def sample(self, texts, steps, guidance_scale=1., generator=None, batch_size=96, x=None):
        level = [next((v for k,v in self.levels.items() if k in t), .5) for t in texts]
        return torch.tensor(level).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

def test_consequences_are_paid():
    'A good phrase above a bad one; -1 for what cannot be read or drawn, and for content that is lost'
    gen, seen = Painted(), []
    def guard(text, prompt, images=None, first=None):
        if images is None: return 'too long' if len(text)>60 else None
        seen.append((len(images), len(first)))
        return 'gone' if 'lost' in text else None
    turn, = drawn_situations(gen, Faulty(None), [Prompt('a lake', Affect(2.4, 2.4))], rounds=1)
    column = rows_for_advice([turn])[0]
    assert column['before']==pytest.approx(4.8, abs=.1)
    said = [Suggest().reply(Suggestion(0., 0., w)) for w in ('bright', 'fair', 'dark', 'lost', 'long '*11)]+['<think>']
    columns = {k: [v]*6 for k,v in column.items() if k!='prompt'}
    outcome = Consequences(gen, Faulty(), guard, draws=3)
    paid = consequence_reward(outcome, most=6.)([[dict(content=o)] for o in said], **columns, trainer_state=None)
    assert paid==pytest.approx([.8, .2, -.8, -1, -1, -1], abs=.02)
    assert seen==[(3, 2)]*4
    blind = Consequences(gen, Faulty(unreadable=lambda i: True), guard)
    assert consequence_reward(blind)(said[:1], **{k: v[:1] for k,v in columns.items()})==[-1.]

def test_chance_never_says_a_phrase_twice(gen):
    p = wish().with_text('a lake by a forest, fog, valence 1.5 arousal 1.0')
    chance = chance_adviser(Faulty(), ['fog', 'rain'])
    advice = chance.suggest([p]*9, None, None, None, None, torch.zeros(9, 2))
    assert {a.add for a in advice}=={'rain'}

def test_evaluate_with_unreadable_pictures(gen):
    t = evaluate(gen, Faulty(unreadable=lambda i: i%2==1), [wish(), wish('a city')], per_prompt=2, steps=2)
    s = summary(t)
    assert len(t)==4 and s['readable']==.5 and math.isfinite(s['v_error'])
    assert s['content'] is None and s['tau_v'] is None
    assert compare(x=t).loc['constant', 'n']==4

def test_tests_need_pairs():
    with pytest.raises(ValueError, match='at least 2'): paired([1., math.nan], [2., 1.])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert paired([1., 2., math.nan], [2., 3., 1.]).n==2
    none = agreement(torch.full((3, 2), math.nan), torch.zeros(3, 2))
    assert none['readable']==0 and math.isnan(none['v_mae'])
