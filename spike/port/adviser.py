"""An LVLM that advises: informed examples for a cold start, phrases that are exchanged, and pay by consequences"""
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emofeedback.core import Affect
from emofeedback.core import Judgement
from emofeedback.core import Prompt
from emofeedback.core import Round
from emofeedback.core import gap
from emofeedback.data.prompts import read_target
from emofeedback.data.prompts import with_target
from emofeedback.data.prompts import without_target
from emofeedback.feedback.result import mean_gap
from emofeedback.images import to_pil
from emofeedback.mini.captions import DETAILS
from emofeedback.mini.captions import HELD_OUT
from emofeedback.mini.captions import MODIFIERS
from emofeedback.mini.captions import neutral
from emofeedback.mini.captions import phrase
from emofeedback.mini.scenes import ATTRS
from emofeedback.mini.scenes import CONTENTS
from emofeedback.understanding.questions import Suggest
from emofeedback.understanding.questions import Suggestion
from emofeedback.understanding.rewards import completion_text
from emofeedback.understanding.sft import Example
from eyes import ViewedExamples # in the library: from .eyes import ViewedExamples

KIND = {p: attribute for p,(attribute,_) in MODIFIERS.items()} # phrase -> what it is about

def readings(judge, images:Tensor) -> Tensor: # (B,2), NaN where unreadable
    'What a judge reads, as numbers'
    found = [j.affect for j in judge.judge(images)]
    return torch.tensor([[float('nan')]*2 if p is None else list(p) for p in found])

def measured_effects(
    gen, judge, # who draws and who reads: no painter's truth
    scenes:Sequence[str]=HELD_OUT, # to try phrases on; scenes of training in a claimed result
    draws:int=6, # pictures per scene and phrase
    steps:int=8, # network calls per picture
    seed:int=0,
) -> dict[str, np.ndarray]: # phrase -> (2,) mean change of valence and arousal
    'What each phrase does on a generator, as a judge sees it'
    def mean(texts):
        x = gen.sample([t for t in texts for _ in range(draws)], steps, generator=torch.Generator().manual_seed(seed))
        return readings(judge, x).nanmean(0).numpy()
    plain = mean(scenes)
    return {p: mean([f'{s}, {p}' for s in scenes])-plain for p in MODIFIERS}

def informed_phrase(
    lacking:np.ndarray, # (2,) target minus mean reading
    said:Sequence[str], # phrases that the prompt holds already
    effects:Mapping[str, np.ndarray], # from `measured_effects`
    least:float=.15, # by how much a phrase must bring the target nearer
) -> str: # '' = none
    'The phrase whose measured effect closes a gap best; it takes the place of one about the same thing'
    gone = lambda p: sum(effects[q] for q in said if KIND[q]==KIND[p])
    left = {p: np.abs(lacking-e+gone(p)).sum() for p,e in effects.items() if p not in said}
    best = min(left, key=left.get)
    return best if left[best]<np.abs(lacking).sum()-least else ''

def phrases_of(text:str, content:str) -> list[str]: # what stands behind the content
    'The phrases of a prompt'
    scene = without_target(text)
    return [p for o in scene[len(content):].split(',') if (p := o.strip())]

def exchanged(
    suggestion:Suggestion,
    prompt:Prompt, # as it is
    most:int=4, # phrases kept, the newest
    step:float=.5, # share of the numbers' change that is made
) -> str: # the next text
    'A suggestion taken: its phrase takes the place of one about the same thing, the numbers move by a part of the gap'
    kind = lambda p: KIND.get(p, p)
    kept = [p for p in phrases_of(prompt.text, prompt.content) if kind(p)!=kind(suggestion.add)]
    text = ', '.join([prompt.content]+(kept+[suggestion.add]*bool(suggestion.add))[-most:])
    numbers = read_target(prompt.text)
    if numbers is None: return text
    return with_target(text, Affect.clamp(numbers.v+step*suggestion.valence, numbers.a+step*suggestion.arousal))

def in_words(lacking:float) -> str:
    'How much of one axis is lacking'
    size = 'much ' if abs(lacking)>1 else ''
    return 'same' if abs(lacking)<=.2 else f'{size}higher' if lacking>0 else f'{size}lower'

class InformedExamples(ViewedExamples):
    'Advice that follows what phrases were measured to do, mixed with ratings'
    def __init__(self, bank, data:dict, effects:Mapping[str, np.ndarray], kinds:Sequence[float]=(.1, .25, .65)):
        super().__init__(bank, data, kinds=kinds)
        self.effects = effects

    def siblings(self, rng, tries:int=12) -> tuple[int, int]:
        'Two pictures of one content and a similar mood: what a round of one prompt looks like'
        same = self.of_kind[rng.integers(len(CONTENTS))]
        one, others = int(rng.choice(same)), rng.choice(same, tries)
        far = np.abs(self.gold[others]-self.gold[one]).sum(1) + 5*(others==one)
        return one, int(others[np.argmin(far)])

    def advice(self, rng) -> Example:
        'One best-and-worst question with an informed answer'
        target = Affect(*rng.uniform(-2.6, 2.6, 2).round(1).tolist())
        wish = np.array(tuple(target))
        best, worst = sorted(self.siblings(rng), key=lambda i: np.abs(self.gold[i]-wish).sum())
        read = [Judgement(Affect.clamp(*(self.gold[i]+rng.normal(0, .2, 2)).tolist())) for i in (best, worst)]
        lacking = (wish-np.mean([tuple(j.affect) for j in read], 0)).clip(-3, 3).round(1)
        content, said = CONTENTS[self.content[best]], self.said(best, rng)
        scene = neutral(content, DETAILS[content][rng.integers(2)] if rng.random()<.5 else None)
        text = with_target(', '.join([scene]+said), Affect.clamp(*(wish+rng.normal(0, .4, 2)).tolist()))
        reason = f'best: {self.think(best)}; need {in_words(lacking[0])} valence, {in_words(lacking[1])} arousal'
        answer = Suggestion(*map(float, lacking), informed_phrase(lacking, said, self.effects))
        asked = Suggest().ask(Prompt(content, target, text), *read, lacking)
        return Example(asked, [self.bank[best], self.bank[worst]], Suggest().reply(answer, reason))

    def said(self, i:int, rng, most:int=3) -> list[str]:
        'Some of the phrases that a picture deserves'
        true = [p for k,x in zip(ATTRS, self.attrs[i]) if (p := phrase(k, float(x))) and rng.random()<.5]
        return true[:rng.integers(0, most+1)]

@dataclass(frozen=True)
class Situation:
    'A round of textual feedback at which advice is asked for'
    turn:Round # prompt, pictures and readings
    @property
    def lacking(self) -> Tensor: return mean_gap(self.turn) # (2,)
    @property
    def pair(self) -> list: # PIL pictures, best and worst
        return to_pil(self.turn.images[[self.turn.best, self.turn.worst]])
    def question(self) -> list[dict]:
        t = self.turn
        return Suggest().ask(t.prompt, t.judgements[t.best], t.judgements[t.worst], self.lacking.tolist())

def drawn_situations(
    gen, judge, # who draws and who reads
    prompts:Sequence[Prompt],
    images:int=4, # per prompt
    steps:int=8, # network calls per picture
    generator:torch.Generator=None,
) -> list[Situation]: # those in which at least two pictures could be read
    'Rounds to practise advice on'
    x = gen.sample([p.text for p in prompts for _ in range(images)], steps, generator=generator)
    x = x.unflatten(0, (-1, images))
    read = judge.judge(x.flatten(0, 1))
    turns = [Round(p, o, read[i*images:(i+1)*images]) for i,(p,o) in enumerate(zip(prompts, x))]
    return [Situation(t) for t in turns if (~t.scores.isnan()).sum()>1]

def rows_for_advice(situations:Sequence[Situation]):
    'A data set for TRL: question, both pictures, and what the pay is worked out from'
    from datasets import Dataset
    wishes = [s.turn.prompt for s in situations]
    return Dataset.from_dict(dict(prompt=[s.question() for s in situations], images=[s.pair for s in situations],
        content=[p.content for p in wishes], text=[p.text for p in wishes], target=[list(p.target) for p in wishes],
        before=[s.lacking.abs().sum().item() for s in situations]))

def consequence_reward(
    gen, judge, # who draws and who reads
    shows:Callable=None, # (prompt, images) -> bool, whether the content was kept; None = not asked
    draws:int=3, # pictures per suggestion
    steps:int=8, # network calls per picture
    take:Callable=exchanged, # (suggestion, prompt) -> the next text
) -> Callable: # a reward function for TRL
    'Pay for what came of it: by how much nearer fresh pictures of the suggested prompt are, as a judge reads them'
    def reward(completions, content, text, target, before, **columns):
        wishes = [Prompt(c, Affect(*v), t) for c,t,v in zip(content, text, target)]
        advice = [Suggest().read(completion_text(c)) for c in completions]
        good = [i for i,a in enumerate(advice) if a is not None and fits(gen, take(a, wishes[i]))]
        paid = [-1.]*len(advice) # for what cannot be read or drawn
        if not good: return paid
        texts = [take(advice[i], wishes[i]) for i in good]
        x = gen.sample([t for t in texts for _ in range(draws)], steps)
        wished = [wishes[i].target for i in good for _ in range(draws)]
        away = gap(judge.judge(x), wished).abs().sum(1).unflatten(0, (-1, draws))
        for k,i in enumerate(good):
            lost = shows is not None and not shows(wishes[i], x[k*draws:(k+1)*draws])
            nearer = before[i]-away[k].nanmean().item()
            paid[i] = -1. if lost or not np.isfinite(nearer) else float(np.clip(nearer/2, -1, 1))
        return paid
    reward.__name__ = 'nearer'
    return reward

def fits(gen, text:str) -> bool:
    'Whether a generator can read a text to its end'
    try: gen.check_length([text])
    except ValueError: return False
    return True
