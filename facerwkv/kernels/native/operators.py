"""C functions as operators of torch: for its dispatcher, autograd, torch.compile and torch.export."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.calls import Inputs, gradients_again

_LIBRARY = torch.library.Library("facerwkv", "FRAGMENT")


def operator(name: str, shapes: str, schema: str | None = None) -> Callable[[Callable], Any]:
    """Registers a function on CPU tensors as torch's operator facerwkv::NAME; `calls.native` runs it.

    shapes: those of its tensors, a line for `Inputs`, checked when torch's dispatcher runs it: the public calls check
    themselves. schema: its signature in torch's words; None reads it off the annotations.
    """
    inputs = Inputs(f"facerwkv::{name}", shapes, (torch.float32,))

    def register(function: Callable) -> Any:
        def checked(*given: Any) -> Any:
            inputs.check(*(x for x in given if not isinstance(x, int)))
            return function(*given)

        signature = schema or torch.library.infer_schema(function, mutates_args=())
        # Not torch.library.custom_op: to run one with gradients imports torch._dynamo, 1.7 s.
        _LIBRARY.define(name + signature, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(name, checked, "CPU")
        made: Any = getattr(torch.ops.facerwkv, name).default
        made.function = function
        made.register_fake = partial(torch.library.register_fake, made, lib=_LIBRARY)
        made.register_autograd = partial(torch.library.register_autograd, made, lib=_LIBRARY)
        return made

    return register


def differentiate(forward: Any, backward: Any, form: Callable[..., Any]) -> None:
    """Make operator `backward`, which takes the inputs and then the gradients of the outputs, `forward`'s derivative.

    What `backward` returns is shaped like `forward`'s inputs. form: the same in PyTorch's operations, for gradients
    that are differentiated again.
    """

    def gradients(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            return gradients_again(form, ctx.saved_tensors, grads)
        return backward(*ctx.saved_tensors, *grads)

    forward.register_autograd(gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
