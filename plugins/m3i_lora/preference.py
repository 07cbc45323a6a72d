"""TRL's DPO trainer on token ids and stored reference log-probabilities.

Three methods of `trl.DPOTrainer` are overridden; its loss is unchanged:

- the dataset already holds ids (`prompt_ids`, `chosen_ids`, `rejected_ids`), so there is no tokenisation, no template
  and no truncation;
- reference log-probabilities come from the dataset's columns. TRL reads those only after `precompute_ref_log_probs`,
  which recomputes them under a key that includes the adapter's random start, so every seed and layer set would pay for
  it;
- a loss that is not finite stops the run at that step.

TRL's usage telemetry is switched off: training opens no connection.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from m3i import StageError

from .certificate import REMEDY

if TYPE_CHECKING:
    from pathlib import Path

    from peft import LoraConfig

    from m3i import LoadedTarget, PreferencePairs, ReferenceLogprobs

    from .dpo_lora import DpoLora


class ReferencedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """`DPOTrainer` on rows of ids that carry their reference log-probabilities."""

    def __init__(self, **arguments: Any) -> None:
        """Takes `DPOTrainer`'s own arguments."""
        super().__init__(**arguments)
        self.precompute_ref_logps = True  # from here on the loss reads the columns of the batch
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        pass

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        """TRL's loss; raises StageError when it is not finite."""
        loss: torch.Tensor = super().compute_loss(model, inputs, *arguments, **options)
        if not torch.isfinite(loss):
            raise StageError(f"training step {self.state.global_step + 1}: the loss is {loss.item()}; {REMEDY}")
        return loss


def pair_rows(pairs: PreferencePairs, reference: ReferenceLogprobs) -> Dataset:
    """One row per pair, in their order."""
    return Dataset.from_dict(
        {
            "prompt_ids": [list(p.prompt_ids) for p in pairs.pairs],
            "chosen_ids": [list(p.chosen_ids) for p in pairs.pairs],
            "rejected_ids": [list(p.rejected_ids) for p in pairs.pairs],
            "ref_chosen_logps": [float(v) for v in reference.chosen_P],
            "ref_rejected_logps": [float(v) for v in reference.rejected_P],
        }
    )


def build_trainer(
    options: DpoLora,
    loaded: LoadedTarget,
    adapter: LoraConfig,
    pairs: PreferencePairs,
    reference: ReferenceLogprobs,
    *,
    seed: int,
    folder: Path,
) -> ReferencedDPOTrainer:
    """The trainer, with the adapter already in the model; writes nothing."""
    # TRL requires a pad token; padding is masked everywhere, so any will do.
    tokenizer = copy.deepcopy(loaded.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(loaded.stop_ids[0])
    on_cpu = loaded.model.device.type == "cpu"
    arguments = DPOConfig(
        output_dir=str(folder),
        seed=seed,
        data_seed=seed,
        per_device_train_batch_size=options.batch_size,
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule.value,
        warmup_steps=0,  # a warm-up from zero would leave the first step without movement
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=options.max_grad_norm,
        beta=options.beta,
        loss_type=["sigmoid", "sft"] if options.nll_weight else ["sigmoid"],
        loss_weights=[1.0, options.nll_weight] if options.nll_weight else [1.0],
        max_length=None,
        router_aux_loss_coef=0.0,
        disable_dropout=False,  # `borrowed` switches dropout off, and on again
        bf16=False,
        fp16=False,
        use_cpu=on_cpu,
        gradient_checkpointing=False,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return ReferencedDPOTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=pair_rows(pairs, reference),
        processing_class=tokenizer,
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id, max_length=None),
        peft_config=adapter,
    )
