'''How often the bundled judge calls pictures of the mini world unfamiliar, and how often photographs familiar

    python tests/bench/familiar.py FOLDER_OF_PHOTOGRAPHS
'''
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from emofeedback import EmoFeedback, read_image, to_pil
from emofeedback.make.models import round_trip
from emofeedback.mini.captions import sample_prompts
from emofeedback.mini.models import bundled
from emofeedback.mini.prior import sample_prior
from emofeedback.mini.scenes import paint, sample_scenes
from emofeedback.understanding.rate import picture_files

def painted(n, seed, draw): return paint(draw(n, np.random.default_rng([seed, 77])))

@torch.no_grad()
def mini_pictures() -> dict:
    'Pictures of the mini world, none of which the cloud was made from'
    vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae')
    prior = painted(1500, 5, lambda n, rng: sample_prior(n, rng)[0])
    found = {'painted scenes': prior, 'wide scenes only': painted(700, 6, sample_scenes),
             'through the autoencoder': round_trip(vae, prior[:500])}
    rngs = (np.random.default_rng(k) for k in (3, 4))
    prompts = [p.text for k,rng in zip((300, 100), rngs) for p in sample_prompts(k, rng, span=3., held_out=k==100)]
    for name,base in (('drawn by the base', True), ('drawn after training', False)):
        gen = EmoFeedback.mini(base=base).gen
        found[name] = gen.sample(prompts, 8, 1., generator=torch.Generator().manual_seed(1))
    emo, targets = EmoFeedback.mini(), [(v, a) for v in (-2, 0, 2) for a in (-2, 0, 2)]
    found['nearest after advice'] = [emo('a lake by a forest', v, a, rounds=3, images=8, seed=k, progress=False).image
                                     for k in range(4) for v,a in targets]
    return found|{'the same at 256 px': to_pil(found['drawn after training'], 256)}

def main(folder:Path) -> None:
    torch.set_num_threads(1)
    known, files = EmoFeedback.mini().familiar, picture_files(folder)
    print(f'limit {known.cloud.limit:.2f}')
    for name,images in (mini_pictures()|{'photographs': [read_image(f) for f in files]}).items():
        d = known.distance(images)
        odd = (d>known.cloud.limit).sum().item()
        print(f'{name:24} {len(d):5} pictures, median distance {d.median().item():.2f}, {odd:4} called unfamiliar')
    print('photographs called familiar:', *(f.name for f,o in zip(files, d.tolist()) if o<=known.cloud.limit))

if __name__=='__main__': main(Path(sys.argv[1]))
