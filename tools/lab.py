'JupyterLab over the notebooks: opening one changes nothing, and what is saved is stored clean'
import sys

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyterlab.labapp import LabApp
from nbdev.clean import clean_jupyter

from run_nbs import without_stderr

def as_opened(nb) -> None:
    'Write into a notebook what JupyterLab would write as soon as its kernel is up, and call a change'
    kernel = nb['metadata'].get('kernelspec', {})
    try: spec = KernelSpecManager().get_kernel_spec(kernel.get('name', ''))
    except NoSuchKernel: return
    kernel.update(display_name=spec.display_name, language=spec.language)
    if spec.language=='python': nb['metadata'].setdefault('language_info', dict(IPythonKernel.language_info))

class CleanNotebooks(AsyncLargeFileManager):
    'Files, with notebooks as the repository wants them'
    async def get(self, *args, **kwargs):
        model = await super().get(*args, **kwargs)
        if model['type']=='notebook' and model['content']: as_opened(model['content'])
        return model

    async def save(self, model, path=''):
        if model['type']=='notebook' and model.get('content') and 'chunk' not in model:
            without_stderr(model['content'])
            clean_jupyter(path=self._get_os_path(path), model=model)
        return await super().save(model, path)

if __name__=='__main__':
    LabApp.launch_instance(['--ServerApp.contents_manager_class=lab.CleanNotebooks', *sys.argv[1:]])
