# SPDX-License-Identifier: Apache-2.0
"""Signatures of functions: types and names of parameters, and where a name must not be guessed."""

from __future__ import annotations

import pytest

from tests.support.pdb_functions import written
from tests.support.pdb_model import (
    X64,
    X86,
    Convention,
    Local,
    Place,
    Procedure,
    Register,
    Structure,
    Variable,
)

STRUCTURES = {"ADODB::_ConnectionPtr": Structure(4), "IErrorInfo": Structure(4), "Widget": Structure(8)}


def signature(tmp_path, name, *items, parameters, machine=X86, **more):
    procedure = Procedure(name, 0x1100, 0x40, parameters=parameters, items=items, **more)
    read = written(tmp_path, procedure, machine=machine, types=STRUCTURES)
    return read.signatures.of(read.functions()[name], name)


def in_memory(name, type_, offset):
    return Variable(name, type_, offset)


def optimised(name, type_, **more):
    return Local(name, type_, (Place(0, 8, Register.ESI),), is_parameter=True, **more)


def test_the_reference_functions_are_as_a_person_would_declare_them(tmp_path):
    raised = signature(
        tmp_path,
        "_com_raise_error",
        in_memory("hr", "HRESULT", 8),
        in_memory("perrinfo", "IErrorInfo*", 12),
        parameters=("HRESULT", "IErrorInfo*"),
        convention=Convention.STDCALL,
    )
    assert raised == "void __stdcall _com_raise_error(HRESULT hr, IErrorInfo * perrinfo)"
    printed = signature(
        tmp_path,
        "PrintProviderError",
        in_memory("pConnection", "ADODB::_ConnectionPtr", 8),
        parameters=("ADODB::_ConnectionPtr",),
    )
    assert printed == "void __cdecl PrintProviderError(ADODB::_ConnectionPtr pConnection)"


def test_a_local_after_the_parameters_is_none(tmp_path):
    items = (in_memory("count", "int", 8), in_memory("left", "int", -4))
    assert signature(tmp_path, "f", *items, parameters=("int",), returns="int") == "int __cdecl f(int count)"


def test_this_is_no_parameter(tmp_path):
    items = (Variable("this", "Widget*", register=Register.ECX), in_memory("n", "int", 8))
    shown = signature(
        tmp_path, "Widget::set", *items, parameters=("int",), this="Widget", convention=Convention.THISCALL
    )
    assert shown == "void __thiscall Widget::set(int n)"


@pytest.mark.parametrize("name", ["Widget::~Widget"])
def test_a_destructor_returns_nothing(tmp_path, name):
    shown = signature(tmp_path, name, parameters=(), this="Widget", convention=Convention.THISCALL)
    assert shown == f"__thiscall {name}()"


def test_x64_code_has_one_convention_which_is_not_shown(tmp_path):
    assert signature(tmp_path, "f", parameters=("int",), machine=X64) == "void f(int)"
    vector = signature(tmp_path, "g", parameters=("double",), machine=X64, convention=Convention.VECTORCALL)
    assert vector == "void __vectorcall g(double)"


def test_further_arguments_are_shown(tmp_path):
    shown = signature(tmp_path, "log", in_memory("format", "const char*", 8), parameters=("const char*", "..."))
    assert shown == "void __cdecl log(const char * format, ...)"


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ((("a", "int"), ("b", "char*"), ("c", "int")), "int a, char * b, int c"),
        ((("a", "int"), ("b", "char*")), "int a, char * b, int"),  # b is second, so that a has to be first
        ((("c", "int"),), "int, char *, int"),  # which of the two?
        ((("b", "char*"),), "int, char * b, int"),
        ((("b", "char*"), ("c", "int")), "int, char * b, int c"),
        ((("x", "double"),), "int, char *, int"),  # of another function's type: nothing fits
    ],
)
def test_a_parameter_that_clang_left_out_does_not_shift_the_names(tmp_path, kept, shown):
    items = [optimised(name, type_) for name, type_ in kept]
    text = signature(tmp_path, "f", *items, parameters=("int", "char*", "int"))
    assert text == f"void __cdecl f({shown})"


def test_locals_of_optimised_code_are_no_parameters(tmp_path):
    items = (Local("left", "int", (Place(0, 8, Register.EBX),)), in_memory("spare", "int", 8))
    assert signature(tmp_path, "f", *items, parameters=("int",)) == "void __cdecl f(int)"


def test_a_parameter_that_is_const_inside_the_function_has_its_name(tmp_path):
    assert signature(tmp_path, "f", optimised("n", "const int"), parameters=("int",)) == "void __cdecl f(int n)"


def test_a_structure_passed_by_the_address_of_a_copy_has_its_name(tmp_path):
    assert signature(tmp_path, "f", optimised("w", "Widget&"), parameters=("Widget",)) == "void __cdecl f(Widget w)"


def test_a_function_without_a_type_has_no_signature(tmp_path):
    assert signature(tmp_path, "f", parameters=None) == ""
