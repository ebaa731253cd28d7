"""The door to chat templates: a conversation as ids, and which of them the assistant said.

A model that came with its own template is spoken to in that; all others in this one (named/turns.jinja):

    <|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>
                                                               ^^^^^^^^^^^^^ mask = 1

`<|end|>` of the assistant is in the mask: a model that never learns it never stops. Tools are written in
Qwen's words: a call is the assistant's and in the mask, what a tool answered is not.
"""

from jaxtrain.tokenize.template import render, renderings

__all__ = ["render", "renderings"]
