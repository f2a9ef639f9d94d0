"""What is found besides the rules of :data:`registry.checks.table.RULES`: where files are read, and where tensors are planned.

Each finding says itself what to do; here stands that it exists, how grave it is, and who says it. A test holds the table
against the source.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Reading an adapter: every command that reads one says these, and a push keeps them with the version.
_READ = """
error adapter-name-in-key: Tensors carry the adapter's name, and PEFT drops them without a word.
error code-file: Code lies beside the weights, and code is never stored with them.
error config-refused: PEFT cannot load the adapter with this value of a field.
error diagonal-without-kasa: A tensor of KaSA is there, and the config does not say KaSA.
error dora-without-magnitude: The config says DoRA, and a magnitude is missing.
error foreign-names: The tensors are named as another trainer names them, not as PEFT does.
error kasa-without-diagonal: The config says KaSA, and its tensor is missing.
error magnitude-without-dora: A magnitude of DoRA is there, and the config does not say DoRA.
error missing-prefix: Tensors do not start as PEFT's do, and would be dropped without a word.
error no-targets: The file has no tensor of the method that the config names.
error nonfinite: The weights hold NaN or infinity.
error orphan-factor: A factor is there without its other half.
error rank-mismatch: A factor's rank is not the one that the config says.
error saved-below-wrapper: A whole module lies where PEFT does not look for it.
error shape-mismatch: Two factors cannot be multiplied, or have not the shape that the method asks for.
error token-rows-missing: The config names tokens of which the file has no rows.
error token-rows-unasked: The file has rows of tokens that the config does not name.
error unknown-parameter: target_parameters names what no tensor belongs to.
error unknown-tensor: A tensor belongs to nothing that the adapter has.
error wrapped-name: Tensors carry the name of a wrapper that is not there on load.
error zero-size-tensor: A tensor has no element.
warning absent-target: The config names a module of which there is no tensor.
warning ambiguous-parameter: target_parameters may mean more than one parameter.
warning base-is-local-path: The base is a path on the machine that trained the adapter.
warning base-is-url: The base is an address, not a repository.
warning base-not-a-repository: The base is not the name of a repository.
warning base-not-checked: A push could not be held against its base, because nobody knows it.
warning base-overridden: The base that was given is not the one that the config names.
warning base-shapes-unknown: The base's modules could not be known.
warning base-unknown: The config names no base model.
warning bias-without-tensor: The config says that biases were trained, and the file has none.
warning declared-module-absent: modules_to_save names a module that the file does not have.
warning dtype-mismatch: The two factors of a layer are of different types.
warning left-out: A file is not stored: too large, a pickle, a folder, or no file that an adapter has.
warning method-not-understood: Nobody taught this registry the tensors of the method.
warning no-op: The adapter, or a part of it, changes nothing.
warning nothing-to-allow: --allow names a rule that found nothing.
warning overlapping-patterns: Two keys of a pattern mean the same layer.
warning pattern-matches-nothing: A key of a pattern means no layer.
warning pattern-unresolved: A pattern could not be evaluated; a check takes it for an error.
warning patterns-version-dependent: Older versions of PEFT read these patterns in another way.
warning scaling-extreme: The scaling makes the adapter do nearly nothing, or far too much.
warning tensor-without-bias: The file has biases that the config does not say.
warning undeclared-module: Whole modules are in the file and the config does not name them.
warning unreadable-card: The model card could not be read.
warning unreadable-sidecar: A record of the training could not be read.
warning version-yanked: What was pushed is a version that is yanked.
note base-alias: The base is known by another name.
note base-revision-not-pinned: The base's revision may move; a commit would not.
note base-revision-of-copy: The base's revision is one of a copy of it.
note layers-replicated: Layers of the base are used more than once.
"""
#: merge, combine, extract and export: reasons why there is no result, which cannot be allowed.
_PLANNED = """
error base-changed-by-initialization: The initialisation changed the base, so the adapter is about another one.
error beside-layers: A parameter changed that the model holds beside all its layers.
error boft-butterfly: BOFT with these blocks cannot be computed for the layer.
error different-bases: The adapters were trained on different bases.
error different-shapes: The adapters have other shapes in the same layer.
error different-tasks: The adapters were trained for different tasks.
error embeddings-differ: An adapter's copy of the embeddings is not the base's.
error experts: Experts in one stack, for which no LoRA is found.
error experts-laid-out-otherwise: One adapter has a layer for each expert, and another one for all.
error feedforward-unknown: Which inputs a vector scales cannot be known.
error grouped-convolution: A grouped convolution has no such merged weight.
error head-unknown: A head is brought of which not all can be known.
error miss-bat: MISS in its form bat is no such change of the weight.
warning module-pickled: A module of the base has no weights but in a pickle, which is not carried over.
error multihead-attention: Weights of an attention in one piece, which PEFT treats in a way of its own.
error nf4-conv1d: The base cannot be seen as QLoRA saw it.
error no-weight: A layer is changed that the base does not have.
error not-combinable: The method has no sum.
error not-in-one-adapter: PEFT has both parts of the sum, but not in one adapter.
error nothing-left: With these weights nothing is left.
error oft-convolution: OFT of this convolution has no merged form here.
error oft-series-changed: What an old version of PEFT computed for OFT is not what a new one does.
error oft-too-old: OFT of a version of PEFT whose tensors mean something else.
error other-count: The method wants another number of adapters.
error other-form: The base holds a matrix as part of a larger one, or in parts.
error other-shape: A tensor has another shape or type in the other model.
error other-tensors: One model lacks tensors of the other.
error other-transformer: The transformer of the base's modules.json lies in another folder.
error rank-not-padded: The engine needs one rank, and this one cannot be padded.
error replacements-differ: Two adapters replace the same tensor by different ones.
error saved-experts: Experts that are brought whole, and that the base holds one by one.
error saved-modules-differ: Two adapters bring different tensors for the same module.
error scaling-unknown: The scaling hangs on a pattern that could not be evaluated.
error stacked: Two changes of one weight do not add up.
error target-in-two-forms: Two adapters adapt one weight, as a module and as a bare parameter, and not as a linear layer.
error tied-encoder-decoder: A tensor that encoder, decoder and output have in common is changed for some of them.
error tied-factors-differ: Tied embeddings were trained, and their factors are not the same.
error tied-head-unknown: What the other side of a tied embedding is called is not known.
error token-rows-differ: Rows of single tokens are about different embeddings.
error token-rows-overlap: Two adapters have rows for the same token.
error vocabulary-half-resized: One side of the vocabulary grew, and the other did not.
error weight-on-boft: BOFT is no delta of which there is a share.
error weight-on-dora: DoRA is no delta of which there is a share.
error weight-on-hra: HRA is no delta of which there is a share.
error weight-on-ia3: IA3 is no delta of which there is a share.
error weight-on-oft: OFT is no delta of which there is a share.
error weight-on-replacement: What replaces the base's has no share.
warning layers-called-otherwise: Layers that may be the same have other names in two adapters of a combination.
warning weight-without-effect: What replaces the base's does so whole, whatever the weights of a combination.
error wrong-layer: The method has no form for a layer of this kind.
"""
#: push --to hf://…
_SENT = """
warning local-path: A path of this machine was taken out of what is sent.
"""


#: What to do, of all of them.
FIX = "each finding says what to do about it"


@dataclass(frozen=True, slots=True)
class OtherRule:
    """``said_by`` are the commands in a word or two."""

    id: str
    severity: str
    reason: str
    said_by: str

    @property
    def may_be_allowed(self) -> bool:
        return self.severity == "error" and self.said_by == "push, check"


def _rules(text: str, said_by: str) -> tuple[OtherRule, ...]:
    lines = (line.split(" ", 2) for line in text.strip().splitlines())
    return tuple(OtherRule(name.removesuffix(":"), severity, reason, said_by) for severity, name, reason in lines)


OTHER_RULES = (
    *_rules(_READ, "push, check"),
    *_rules(_PLANNED, "merge, combine, extract, export"),
    *_rules(_SENT, "push --to"),
)
