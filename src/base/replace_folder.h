#pragma once
// A folder that takes the place of another.
#include <filesystem>

namespace penstock {

// Gives `from` the name `to`, whose folder above it exists. What has this name is replaced in one go, where the file system can exchange names, and
// then removed: whoever looks, or comes after a crash, finds the old folder or the new one. fsyncs the folder above.
// Throws Error kDataLoss naming the path and the cause.
void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace penstock
