'Run the lesson cells of every notebook, each in a process and with a time limit of its own'
import atexit
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from nbdev.test import nbdev_test

from plan import read_libraries
from run_nbs import arguments, notebooks

def test_nb(path:Path, flags:str, log:IO) -> None:
    'In a fork: what it prints goes to `log`, and it leaves without clearing the memory that it shares'
    for stream in (1, 2): os.dup2(log.fileno(), stream)
    try: nbdev_test.__wrapped__(path=str(path), flags=flags)
    finally: atexit._run_exitfuncs() # which a fork skips before Python 3.13: temporary folders go

@dataclass
class Trial:
    'A notebook under test'
    path:Path
    process:BaseProcess
    log:IO
    start:float = field(default_factory=time.time)

def begin(path:Path, flags:str='') -> Trial:
    'A fork that has the libraries and nothing of another notebook, and gives its memory back'
    log = TemporaryFile()
    process = get_context('fork').Process(target=test_nb, args=(path, flags, log))
    process.start()
    return Trial(path, process, log)

def error(trial:Trial, timeout:int) -> str|None:
    'What went wrong (None: nothing) with one that has ended or is out of time'
    if trial.process.is_alive():
        trial.process.kill()
        return f'not finished after {timeout} s'
    trial.log.seek(0)
    return trial.log.read().decode(errors='replace')[-6000:] if trial.process.exitcode else None

def test_all(files:list[Path], flags:str='', timeout:int=600, jobs:int=2) -> dict[str, str]: # name -> what went wrong
    'Some at a time'
    waiting, running, bad = list(files), [], {}
    while waiting or running:
        while waiting and len(running)<jobs: running.append(begin(waiting.pop(0), flags))
        wait([t.process.sentinel for t in running], min(t.start+timeout for t in running)-time.time())
        for t in list(running):
            seconds = time.time()-t.start
            if t.process.is_alive() and seconds<timeout: continue
            running.remove(t)
            name, wrong = os.path.relpath(t.path), error(t, timeout)
            print('FAIL' if wrong else 'ok  ', f'{seconds:5.1f} s ', name, flush=True)
            if wrong: bad[name] = wrong
    return bad

def main() -> None:
    a = arguments(__doc__)
    a.add_argument('--timeout', type=int, default=600, help='seconds allowed for a notebook (default: %(default)s)')
    a.add_argument('--jobs', type=int, default=2, help='notebooks at a time (default: %(default)s)')
    args = a.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler) # a shell starts what runs in the background deaf to Ctrl-C
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.update(HF_HUB_OFFLINE='1', MPLBACKEND='agg')
    read_libraries()
    files = notebooks(*args.paths)
    bad = test_all(files, args.flags, args.timeout, args.jobs)
    reports = [f'{name}\n{error}' for name,error in bad.items()]
    if bad: sys.exit('\n'.join([*reports, f'{len(bad)} of {len(files)} notebooks failed: {", ".join(bad)}']))
    print(f'{len(files)} notebooks passed')

if __name__=='__main__': main()
