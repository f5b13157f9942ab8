'''Does a long run pay more for its last updates than for its first? Memory, open files and time of reward feedback

python tests/bench/long_run.py OUT.json [--updates 300,3000] [--save-every 20]

One thread, some 40 ms of processor time for an update of the smallest generator. Every update draws two new prompts, as
with fresh targets, and each run gets a folder that is deleted at its end. Per run: resident memory and open descriptors
after a tenth of the updates and at the end, processor time of an update (median and mean) in the first and the last
tenth, the size of the folder, and the number of texts that are remembered. Those under nbs/recorded/reliability were
made so.
'''
import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from emofeedback.core import Affect, Prompt
from emofeedback.generation.objectives import Matching
from emofeedback.generation.sd3 import SD3
from emofeedback.generation.state import RFConfig
from emofeedback.generation.train import train
from emofeedback.mini.models import tiny_pipeline
from emofeedback.runs import write_json
from emofeedback.system import quiet, versions

def smallest() -> SD3:
    'A generator of the real class with one block of 32, for pictures of 8 px'
    from diffusers import SD3Transformer2DModel
    torch.manual_seed(0)
    net = SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=32,
        num_attention_heads=1, joint_attention_dim=128, caption_projection_dim=32, pooled_projection_dim=128,
        pos_embed_max_size=4, qk_norm='rms_norm')
    return SD3(tiny_pipeline(transformer=net), keep_empty_t5=False, cache=2**22)

def scenes(n, rng): return [Prompt(f'a lake, valence {v:.4f}', Affect(v, 0)) for v in rng.uniform(-2, 2, n)]
def redness(images, prompts): return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))

def resident() -> float: # MB
    'Memory of this process now; the largest so far where the system does not tell'
    try: return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
    except OSError: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**(20 if sys.platform=='darwin' else 10)

def descriptors() -> int|None:
    for folder in ('/proc/self/fd', '/dev/fd'):
        if os.path.isdir(folder): return len(os.listdir(folder))

def measure(updates:int, save_every:int) -> dict:
    'One run, looked at as it goes'
    cfg = RFConfig(Matching(draws=1, beta=0), prompts=2, group_size=2, steps=2, rank=2, lr=1e-4, save_every=save_every)
    gen, times, looks, tenth = smallest(), [time.process_time()], [], max(1, updates//10)
    def look(gen, row):
        times.append(time.process_time())
        if row['update'] in (tenth, updates): looks.append((round(resident(), 1), descriptors()))
    with tempfile.TemporaryDirectory() as d:
        train(gen, dict(red=redness), dict(red=1.), scenes, cfg, Path(d)/'run', updates=updates, on_update=look,
              progress=False)
        size = sum(f.stat().st_size for f in Path(d).rglob('*') if f.is_file())
    each = [1000*(b-a) for a,b in zip(times, times[1:])] # the last save of an update falls into the next
    ms = [round(statistics.median(o), 2) for o in (each[:tenth], each[-tenth:])]
    mean = [round(statistics.mean(o), 2) for o in (each[:tenth], each[-tenth:])]
    (rss, fds), (rss_end, fds_end) = looks
    return dict(updates=updates, rss_mb=[rss, rss_end], descriptors=[fds, fds_end], median_ms=ms, mean_ms=mean,
                folder_kb=round(size/2**10, 1), texts=len(gen._seen))

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--updates', default='300,3000')
    a.add_argument('--save-every', type=int, default=20)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with quiet():
        for n in map(int, args.updates.split(',')):
            rows.append(measure(n, args.save_every))
            write_json(args.out, dict(date=time.strftime('%Y-%m-%d'), save_every=args.save_every, versions=versions(),
                                      rows=rows))
            print(rows[-1])

if __name__=='__main__': main()
