// The module serfast._C: importing it registers the CPU kernels and names the instruction set they use.

#include <Python.h>

#include <stdexcept>

#include "cpu_capability.h"

namespace {

PyModuleDef module_definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C(void) {
  const char* capability = nullptr;
  try {
    capability = serfast::name_of(serfast::cpu_capability());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return nullptr;
  }
  PyObject* module = PyModule_Create(&module_definition);
  if (module != nullptr && PyModule_AddStringConstant(module, "cpu_capability", capability) != 0) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
