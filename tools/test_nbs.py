'Run the lesson cells of every notebook, each in a process and with a time limit of its own'
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from run_nbs import arguments, notebooks

nbdev_test = Path(sys.executable).parent/'nbdev_test' # of this environment, activated or not

def test_nb(path:Path, flags:str='', timeout:int=600) -> tuple[str|None, float]:
    'What went wrong (None: nothing), and the seconds taken; a process of its own gives its memory back'
    start = time.time()
    command = [nbdev_test, '--path', str(path)] + (['--flags', flags] if flags else [])
    how = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        r = subprocess.run(command, timeout=timeout, **how)
        error = r.stdout[-6000:] if r.returncode else None
    except subprocess.TimeoutExpired: error = f'not finished after {timeout} s'
    return error, time.time()-start

def main() -> None:
    a = arguments(__doc__)
    a.add_argument('--timeout', type=int, default=600, help='seconds allowed for a notebook (default: %(default)s)')
    a.add_argument('--jobs', type=int, default=2, help='notebooks at a time (default: %(default)s)')
    args = a.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler) # a shell starts what runs in the background deaf to Ctrl-C
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.update(HF_HUB_OFFLINE='1', MPLBACKEND='agg')
    files, bad = notebooks(*args.paths), {}
    with ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(lambda f: test_nb(f, args.flags, args.timeout), files)
        for f,(error,seconds) in zip(files, results):
            name = os.path.relpath(f)
            print('FAIL' if error else 'ok  ', f'{seconds:5.1f} s ', name, flush=True)
            if error: bad[name] = error
    reports = [f'{name}\n{error}' for name,error in bad.items()]
    if bad: sys.exit('\n'.join([*reports, f'{len(bad)} of {len(files)} notebooks failed: {", ".join(bad)}']))
    print(f'{len(files)} notebooks passed')

if __name__=='__main__': main()
