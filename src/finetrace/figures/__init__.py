"""What figures share, and those of stages that are no lenses: data in, Figure out.

Code that decides how figures look lies in modules and packages named `figures`, here and in the lenses' folders: by
this name its changes draw again and measure nothing.
"""
