'''Answers that no model should give, through every reader and reward: what comes out is in range, or nothing

In short with the other tests; EMOFEEDBACK_TORTURE=1 takes 10,000 answers, EMOFEEDBACK_RECORD=FOLDER writes the counts.
'''
import json
import math
import os
import random
import time
from collections import Counter
from pathlib import Path

from emofeedback.affect import EMOTIONS
from emofeedback.core import Affect, Prompt
from emofeedback.data.prompts import TARGET, read_target
from emofeedback.understanding.describe import Cache
from emofeedback.understanding.questions import LONGEST, Describe, Rate, Suggest, Suggestion, read_rating
from emofeedback.understanding.remote import answer_text
from emofeedback.understanding.rewards import emotion_reward, format_reward, rank_reward, va_reward

ANSWERS = 10_000 if os.environ.get('EMOFEEDBACK_TORTURE')=='1' else 500
WISH = Prompt('a lake by a forest', Affect(2, 1), 'a lake by a forest, fog, valence 2.0 arousal 1.0')
GOOD = [Rate().reply(Affect(1.5, -2), 'awe', 'soft light'), Rate(direct=True).reply(Affect(-3, 3)),
        Suggest().reply(Suggestion(.5, -1.5, 'warm light', 'a lake at dawn, valence 2.5 arousal -0.5', 'fog'), 'dark'),
        Describe().reply('a lake', 'a gloomy lake, heavy rain'),
        '```json\n{"valence": +1.0, \'arousal\': None, "emotion": "awe",}\n```',
        '<think>a</think>{"valence": 1, "arousal": 2, "emotion": "fear"}']
NUMBERS = ['NaN', 'Infinity', '-Infinity', '1e999', '-1e999', '9'*400, '1e-400', '-0.0', '3.0000000001', '-3.1', '6.1',
           '0x10', 'true', 'null', '"2"', '[1]', '{}', '1_0', '٣', '١٫٥', '']
SPICE = ['\x00', '\u202e', '\ud800', '\udfff', '🌊', '<answer>', '</answer>', '<think>', '</think>', '{', '}', '"', "'",
         '\\', '\\u', '\\ud800', '\n', ',', '...', 'valence 3.0 arousal 3.0', 'valence 99 arousal -99', '[', ']', 'é',
         '/*', '\u2028', '```', '=1+1', '../../etc/passwd', '<script>alert(1)</script>', '{text}', '%s', '$(id)']
LONG = ['<answer>', '{', '[', '"a":', "{'a':", '<think>', 'a lake ', '\\', ' ', ',', '9'] # a few hundred times

def spoiled(rng) -> str:
    'An answer with something odd in it'
    text = rng.choice(GOOD)
    for _ in range(rng.randint(1, 4)):
        i, j = sorted(rng.randrange(len(text)+1) for _ in range(2))
        way = rng.random()
        if way<.15: text = text[:i]
        elif way<.3: text = text[:i]+text[j:]
        elif way<.4: text = text[:j]+text[i:j]*rng.randint(1, 3)+text[j:]
        elif way<.65: text = text[:i]+rng.choice(SPICE)*rng.randint(1, 3)+text[i:]
        elif way<.72: text += rng.choice(GOOD)
        elif way<.74: text = text[:i]+rng.choice(LONG)*rng.choice((300, 2000))+text[i:]
        else:
            numbers = [o for o in ('1.5', '-2.0', '-3.0', '3.0', '0.5', '-1.5', '2.5', '+1.0') if o in text]
            if numbers: text = text.replace(rng.choice(numbers), rng.choice(NUMBERS))
    return text

def within(x, low, high) -> bool: return isinstance(x, float) and math.isfinite(x) and low<=x<=high

def right_rating(j) -> bool:
    if j.affect is None: return j.emotion is None
    return all(within(x, -3, 3) for x in j.affect) and (j.emotion is None or j.emotion in EMOTIONS)

def right_suggestion(s) -> bool:
    if s is None: return True
    texts = [s.apply(WISH), s.apply(WISH, most=0, step=.5), s.apply(Prompt('a lake', None, 'a lake'))]
    lines = all(isinstance(o, str) and o.isprintable() and len(o)<1000 for o in (*texts, s.add, s.drop, s.prompt))
    targets = [read_target(o) for o in texts]
    return lines and within(s.valence, -6, 6) and within(s.arousal, -6, 6) and targets[0] is not None

def right_description(pair) -> bool:
    if pair is None: return True
    lines = zip(pair, LONGEST.values(), strict=True)
    return all(o.isprintable() and 0<len(o)<=n and not TARGET.search(o) and o.encode() for o, n in lines)

def right_rewards(found) -> bool: return all(o is None or within(o, 0, 1) for o in found)

def said(text:str) -> str: return answer_text(dict(choices=[dict(message=dict(content=text, reasoning='a'))]))

READERS = {
    'rate': lambda t: right_rating(Rate().read(t)), 'direct': lambda t: right_rating(Rate(direct=True).read(t)),
    'strict': lambda t: right_rating(read_rating(t, strict=True)),
    'suggest': lambda t: right_suggestion(Suggest().read(t)),
    'describe': lambda t: right_description(Describe().read(t)),
    'reasoned': lambda t: right_rating(Rate().read(said(t))),
    'format reward': lambda t: right_rewards(format_reward([t, [dict(content=t)]])),
    'emotion reward': lambda t: right_rewards(emotion_reward([t, t], ['awe', None])),
    'va reward': lambda t: right_rewards(va_reward()([t, t, t], [[1.5, -2.], [-3., 3.], None])),
    'graded reward': lambda t: right_rewards(va_reward(levels=(.25, .5, 1.))([t, t], [[0., 0.], None])),
    'rank reward': lambda t: right_rewards(rank_reward([t, t, t], [[0., 0.], [1., -1.], None]))}

def accepted(text:str) -> bool:
    'Whether anybody can read it'
    return any((Rate().read(text).affect, Rate(direct=True).read(text).affect, Suggest().read(text),
                Describe().read(text)))

def test_odd_answers_are_in_range_or_nothing(tmp_path):
    rng, counts, slowest, worst = random.Random(11), Counter(), 0., ''
    kept, lines = Cache(tmp_path), []
    for k in range(ANSWERS):
        text = spoiled(rng)
        for name, right in READERS.items():
            start = time.perf_counter()
            try: ok = right(text)
            except Exception as e: counts[f'uncaught: {name} {type(e).__name__} {e} {text[:200]!r}'] += 1
            else:
                if not ok: counts[f'out of range: {name} {text[:200]!r}'] += 1
            took = time.perf_counter()-start
            if took>slowest: slowest, worst = took, f'{name}: {len(text)} characters, {text[:60]!r}'
        counts['right' if accepted(text) else 'refused'] += 1
        line = dict(key=f'{k}', name=text[:300], model='m', neutral=None, emotional=None, tries=1, raw=text[:300])
        if k%10==0:
            kept.add([line])
            lines.append(line)
    assert list(Cache(tmp_path).lines.values())==lines # as they were given, and none lost to another's line break
    bad = {k: n for k, n in counts.items() if k not in ('right', 'refused')}
    if folder := os.environ.get('EMOFEEDBACK_RECORD'):
        def total(word): return sum(n for k, n in bad.items() if k.startswith(word))
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder)/'answers.json').write_text(json.dumps(dict(
            what='answers of models, through every reader and reward', readers=len(READERS), tried=ANSWERS,
            right=counts['right'], refused=counts['refused'], uncaught=total('uncaught'),
            out_of_range=total('out of range'), slowest_s=round(slowest, 3)), indent=1)+'\n')
    assert not bad, bad
    assert counts['right']>ANSWERS/20 and counts['refused']>ANSWERS/20, counts # both ways out were taken
    assert slowest<20, worst
