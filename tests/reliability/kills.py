'''Kill the commands of the project with `kill -9`, let them go on, and compare with a run that nobody disturbed

python tests/reliability/kills.py OUT [--trials 20] [--deaths 6] [--seconds 4] [--seed 0] [--works demo,evaluate]

Three attacks, a JSON file each in OUT:

kills    every trial is killed one to three times at random moments, then ends undisturbed
deaths   the process dies in the middle of a file it writes, before it takes its name, or right after
seconds  a second process starts in a folder in which one works

Trials are forks of one process that has imported everything, so that death falls into work and not into imports.
'''
import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pandas as pd

WORKS = {
    'train-generator': '--updates 6 --group-size 4 --set prompts=3 --set save_every=2 --out {0}/run',
    'train-judge': '--rows {1} --updates 8 --group-size 4 --set pictures=4 --set save_every=2 --out {0}/run',
    'build-data': '--mini 120 --lexicon warriner --near --describe mini --batch 16 --out {0}/run',
    'demo': '--prompts {2} --updates 3 --cases 3 --rounds 2 --images 3 --fresh 2 --out {0}/run',
    'evaluate': '--grid 3 --out {0}/run/table.csv',
    'evaluate-judge': '--limit 64 --batch 16 --out {0}/run',
}
LOCKED = 'train-generator', 'train-judge', 'build-data', 'demo', 'evaluate-judge' # evaluate has no folder
CLOCK = re.compile(r'seconds|.*_s|train_runtime|.*_per_second') # what no run has twice
LEFT_OUT = re.compile(r'state-.*\.pt|\.lock|report\.html|checkpoint-.*') # hold the clock, or are no result

def timeless(o):
    'Anything from JSON without the clock'
    if isinstance(o, dict): return {k: timeless(v) for k,v in o.items() if not CLOCK.fullmatch(k)}
    return [timeless(v) for v in o if not is_of_time(v)] if isinstance(o, list) else o

def is_of_time(o): return isinstance(o, dict) and o.get('name')=='It is quick' # a claim of the demo, in minutes

def digest(file):
    data = file.read_bytes()
    if file.suffix=='.parquet':
        data = pd.read_parquet(file).drop(columns='seconds').to_json(double_precision=15).encode()
    if file.suffix in ('.json', '.jsonl'):
        lines = data.decode().splitlines() if file.suffix=='.jsonl' else [data.decode()]
        data = json.dumps([timeless(json.loads(o)) for o in lines]).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()

def outcome(folder):
    'name -> digest of every file that is a result'
    files = [o for o in sorted(folder.rglob('*')) if o.is_file()]
    names = [o.relative_to(folder) for o in files]
    return {str(n): digest(o) for n,o in zip(names, files) if not any(map(LEFT_OUT.fullmatch, n.parts))}

class Deaths:
    'Counts the moments at which a file is made whole, and dies at one of them'
    def __init__(self, at=None, share=.5):
        self.count, self.at, self.share = 0, at, share
        self.fsync, self.replace = os.fsync, os.replace
        os.fsync, os.replace = self.flushed, self.named

    def due(self):
        self.count += 1
        return self.count==self.at

    def die(self): os.kill(os.getpid(), signal.SIGKILL)

    def flushed(self, fd):
        fd = fd if isinstance(fd, int) else fd.fileno()
        if self.due():
            try: os.ftruncate(fd, int(os.fstat(fd).st_size*self.share)) # torn
            except OSError: pass # a folder
            self.die()
        self.fsync(fd)

    def named(self, *args, **kwargs):
        if self.due(): self.die()
        self.replace(*args, **kwargs)
        if self.due(): self.die()

class Attack:
    def __init__(self, out, seed=0):
        self.out, self.rng = Path(out), random.Random(seed)
        self.out.mkdir(parents=True, exist_ok=True)
        self.tmp = Path(tempfile.mkdtemp())
        self.whole = {} # work -> (outcome, seconds, moments) undisturbed
        (self.tmp/'scenes.txt').write_text('a lake by a forest\n')
        if self.end(self.start(['build-data', '--mini', '24', '--out', str(self.tmp/'rows')], self.tmp/'rows.log')):
            raise SystemExit((self.tmp/'rows.log').read_text())

    def args(self, work, folder):
        return [work, *WORKS[work].format(folder, self.tmp/'rows', self.tmp/'scenes.txt').split()]

    def start(self, args, log, deaths=None):
        'A forked child that runs a command; its process id'
        if pid := os.fork(): return pid
        code = 70
        try:
            import torch
            torch.set_num_threads(torch.get_num_threads()) # PyTorch makes its pool anew, before threads race for it
            os.setpgid(0, 0)
            fd = os.open(log, os.O_WRONLY|os.O_CREAT|os.O_TRUNC)
            for k in (1, 2): os.dup2(fd, k)
            hook = Deaths(**(deaths or {}))
            try: app(args)
            except SystemExit as e: code = e.code if isinstance(e.code, int) else bool(e.code)
            Path(f'{log}.count').write_text(str(hook.count))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def end(self, pid, after=None):
        'Its exit status, 0 if all went well; negative if it was killed'
        stop = time.monotonic()+(after if after is not None else 600)
        while time.monotonic()<stop:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done: return os.waitstatus_to_exitcode(status)
            time.sleep(.005)
        os.killpg(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def undisturbed(self, work):
        if work not in self.whole:
            folder, start = self.tmp/f'{work}-whole', time.monotonic()
            code = self.end(self.start(self.args(work, folder), log := self.tmp/f'{work}.log'))
            if code: raise SystemExit(f'{work} fails undisturbed: {log.read_text()}')
            self.whole[work] = outcome(folder), time.monotonic()-start, int(Path(f'{log}.count').read_text())
        return self.whole[work]

    def compared(self, work, folder, log):
        'What is wrong after the last, undisturbed call'
        code, whole = self.end(self.start(self.args(work, folder), log)), self.whole[work][0]
        if code: return [f'exit code {code}: {log.read_text()[-300:]}']
        found = outcome(folder)
        shutil.rmtree(folder)
        return [k for k in {**whole, **found} if whole.get(k)!=found.get(k)]

    def row(self, name, work, **row):
        print(name, work, row, flush=True)
        file = self.out/f'{name}.json'
        rows = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(rows|{work: row}, indent=1)+'\n')

    def kills(self, work, trials):
        seconds, wrong, kills, same = self.undisturbed(work)[1], [], 0, 0
        for k in range(trials):
            folder, log, hit = self.tmp/f'{work}-{k}', self.tmp/f'{work}-{k}.log', 0
            for i in range(self.rng.randint(1, 3)):
                code = self.end(self.start(self.args(work, folder), log), self.rng.uniform(0, seconds))
                if code not in (0, -signal.SIGKILL): wrong.append(f'exit code {code}: {log.read_text()[-300:]}')
                hit += code<0
            other = self.compared(work, folder, log)
            kills, same, wrong = kills+hit, same+(not other), wrong+other
        self.row('kills', work, trials=trials, kills=kills, identical=same, seconds=round(seconds, 1), wrong=wrong)

    def deaths(self, work, trials):
        moments, wrong, died, same = self.undisturbed(work)[2], [], 0, 0
        for k,at in enumerate(sorted(self.rng.sample(range(1, moments+1), min(trials, moments)))):
            folder, log = self.tmp/f'{work}-w{k}', self.tmp/f'{work}-w{k}.log'
            died += self.end(self.start(self.args(work, folder), log, dict(at=at, share=self.rng.random())))<0
            other = self.compared(work, folder, log)
            same, wrong = same+(not other), wrong+[f'{at} of {moments}: {o}' for o in other]
        self.row('deaths', work, trials=trials, died=died, moments=moments, identical=same, wrong=wrong)

    def seconds(self, work, trials):
        refused, took = 0, []
        for k in range(trials):
            folder, logs = self.tmp/f'{work}-s{k}', [self.tmp/f'{work}-s{k}-{i}.log' for i in range(2)]
            first = self.start(self.args(work, folder), logs[0])
            while not (folder/'run/.lock').exists(): time.sleep(.005)
            time.sleep(.1)
            start = time.monotonic()
            code = self.end(self.start(self.args(work, folder), logs[1]))
            took.append(time.monotonic()-start)
            refused += code==1 and 'another process works in' in logs[1].read_text()
            self.end(first, 0)
            shutil.rmtree(folder)
        self.row('seconds', work, trials=trials, refused=refused, slowest_s=round(max(took), 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path)
    p.add_argument('--works', default=','.join(WORKS))
    for name,n in dict(trials=20, deaths=6, seconds=5, seed=0).items(): p.add_argument(f'--{name}', type=int, default=n)
    args = p.parse_args()
    attack = Attack(args.out, args.seed)
    try:
        for work in args.works.split(','):
            if args.trials: attack.kills(work, args.trials)
            if args.deaths: attack.deaths(work, args.deaths)
            if args.seconds and work in LOCKED: attack.seconds(work, args.seconds)
    finally: shutil.rmtree(attack.tmp)

if __name__=='__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1') # a pool of threads does not survive a fork
    import sys
    sys.path.insert(0, str(Path(__file__).parents[2]/'tools'))
    from plan import read_libraries
    read_libraries()

    import emofeedback.demo.study # noqa: F401
    import emofeedback.understanding.grpo # noqa: F401
    from emofeedback.cli.main import app
    main()
