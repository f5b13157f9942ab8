'The commands of the console script as Markdown: usage, help and a table of options, read from their functions'
import inspect
import re
import typing
from importlib import import_module

import typer
from nbdev.config import get_config

def script() -> tuple[str, str]: # ('emofeedback.cli.main', 'main')
    'Module and function of the console script'
    module, name = get_config().console_scripts.strip().partition('=')[2].split(':')
    return module.strip(), name.strip()

def commands() -> dict: # function -> what a user types
    'The functions behind the commands, and the one behind the options before them'
    app = next(o for o in vars(import_module(script()[0])).values() if isinstance(o, typer.Typer))
    own = {app.registered_callback.callback: ''} if app.registered_callback else {}
    return own | {o.callback: o.name or o.callback.__name__.replace('_', '-') for o in app.registered_commands}

def prose(text:str) -> str:
    'Help as Markdown: a paragraph that starts with a backspace keeps its lines'
    def block(o): return '```sh\n'+o.strip('\b\n ')+'\n```' if o.startswith('\b') else ' '.join(o.split())
    return '\n\n'.join(block(o) for o in re.split(r'\n[ \t]*\n', text.strip(' \n')) if o.strip())

def kind(annotation) -> str:
    'Type of a value in a word or two; nothing for a flag'
    parts = ' '.join(kind(o) for o in typing.get_args(annotation) if isinstance(o, type))
    if parts: return parts+' ...' if typing.get_origin(annotation) is list else parts
    return {bool: '', str: 'text'}.get(annotation, getattr(annotation, '__name__', str(annotation)).lower())

def marked(text:str) -> str:
    'Help with the names of options as code, fit for a cell of a table'
    return re.sub(r'(?<![\w`-])(--[a-z][\w-]*)', r'`\1`', text).replace('|', r'\|')

def row(name:str, default, annotation) -> str:
    'One argument or option as a row of a table'
    bare, info = typing.get_args(annotation)[:2]
    declared = info.default, *(info.param_decls or ()) # as typer reads `Annotated`
    flags = [o for o in declared if str(o).startswith('-')]
    if isinstance(info, typer.models.ArgumentInfo): flags = [name.upper()]
    names = ', '.join(f'`{o}`' for o in flags or [f'--{name}'.replace('_', '-')])
    text, _, told = (info.help or '').partition('[default: ') # where the help knows better
    told = told.rstrip('] ')
    if default is inspect.Parameter.empty: told = 'required'
    elif not told and not any(default is o for o in (None, False)): told = f'`{default}`'
    return f'| {names} | {kind(bare)} | {marked(told)} | {marked(text.strip())} |'

def command_table(function, name:str) -> str:
    'A command as a section of a page'
    hints = typing.get_type_hints(function, include_extras=True)
    found = [(k, p.default, hints[k]) for k,p in inspect.signature(function).parameters.items()]
    arguments = [k.upper() for k,_,a in found if isinstance(typing.get_args(a)[1], typer.models.ArgumentInfo)]
    usage = ' '.join([get_config().lib_name, *([name] if name else []), *arguments, '[options]'])
    table = ['| option | | default | meaning |', '|---|---|---|---|', *(row(*o) for o in found)]
    told = prose(inspect.getdoc(function) or '')
    return '\n\n'.join(o for o in (f'### {function.__name__}', f'```sh\n{usage}\n```', told, '\n'.join(table)) if o)

def described(function) -> str|None: # None: no command
    'What a page shows in place of the signature of a command; nothing for the function that starts them all'
    if (function.__module__, function.__name__)==script(): return ''
    known = {inspect.unwrap(f): (f, name) for f,name in commands().items()} # a command wraps the function of its page
    found = known.get(inspect.unwrap(function))
    return found and command_table(*found)
